/** What a process that ended this way answers to its caller. These numbers are part of the public interface. */
export const EXIT = { done: 0, refused: 1, usage: 2 } as const;

/** An expected end, told to the user as a sentence and never as a stack. */
export class CliError extends Error {
  override name = "CliError";
  constructor(
    message: string,
    readonly exitCode: number = EXIT.refused,
  ) {
    super(message);
  }
}

/** The command line itself is wrong, whatever the disk holds. */
export class UsageError extends CliError {
  override name = "UsageError";
  constructor(message: string) {
    super(message, EXIT.usage);
  }
}

/** Stopped by a signal: exit code 128 + its number, so 130 for Ctrl-C, as shells have it. */
export class Interrupted extends CliError {
  override name = "Interrupted";
  constructor(message: string, exitCode = 130) {
    super(message, exitCode);
  }
}
