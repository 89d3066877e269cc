/** The outside world as the command line meets it. */
export interface World {
  cwd: string;
  env: NodeJS.ProcessEnv;
  platform: NodeJS.Platform;
  /** Someone sits at a terminal and can be asked. */
  interactive: boolean;
  out: (text: string) => void;
  err: (text: string) => void;
}
