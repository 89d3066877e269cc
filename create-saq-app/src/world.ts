/** What the command line uses of its process: folder, environment, platform, terminal and output. */
export interface World {
  cwd: string;
  env: NodeJS.ProcessEnv;
  platform: NodeJS.Platform;
  /** True if standard input and output are a terminal, so that the user can be asked. */
  interactive: boolean;
  out: (text: string) => void;
  err: (text: string) => void;
}
