/** The parts of the process that the command line uses. Tests replace them. */
export interface CliContext {
  cwd: string;
  env: NodeJS.ProcessEnv;
  platform: NodeJS.Platform;
  /** True if standard input and output are a terminal, so that the user can be asked. */
  interactive: boolean;
  out: (text: string) => void;
  err: (text: string) => void;
}
