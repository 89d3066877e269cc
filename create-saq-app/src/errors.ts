/** Exit codes of the command line. They are part of the public interface. */
export const EXIT = { success: 0, failure: 1, usage: 2 } as const;

/** An expected failure. The user sees only its message, never a stack. */
export class CliError extends Error {
  override name = "CliError";
  constructor(
    message: string,
    readonly exitCode: number = EXIT.failure,
  ) {
    super(message);
  }
}

/** The arguments of the command line are wrong, whatever files exist on disk. */
export class UsageError extends CliError {
  override name = "UsageError";
  constructor(message: string) {
    super(message, EXIT.usage);
  }
}

/** Stopped by a signal. The exit code is 128 + the signal's number, as in shells; for Ctrl-C it is 130. */
export class Interrupted extends CliError {
  override name = "Interrupted";
  constructor(message: string, exitCode = 130) {
    super(message, exitCode);
  }
}
