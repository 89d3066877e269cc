/** An error that the user can fix. Only its message is shown, without a stack. */
export class CliError extends Error {
  readonly exitCode: ExitCode;

  constructor(message: string, exitCode: ExitCode = exitCodes.failed) {
    super(message);
    this.name = "CliError";
    this.exitCode = exitCode;
  }
}

/** Exit codes of the commands. Scripts and supervisors rely on them. */
export const exitCodes = {
  /** Done, healthy, or stopped by a signal. */
  done: 0,
  /** Something failed or is not healthy. */
  failed: 1,
  /** The command line cannot be understood. */
  usage: 2,
  /** Ctrl-C or SIGTERM has stopped a change before its end. */
  stopped: 130,
} as const;
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

export const usageError = (message: string): CliError => new CliError(message, exitCodes.usage);
