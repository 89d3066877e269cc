import { SaqError } from "../errors.js";

/** What the user can mend: the message is all that is shown, without a stack. */
export class CliError extends Error {
  readonly exitCode: ExitCode;

  constructor(message: string, exitCode: ExitCode = exitCodes.failed) {
    super(message);
    this.name = "CliError";
    this.exitCode = exitCode;
  }
}

/** Scripts and supervisors rely on these (L-5). */
export const exitCodes = {
  /** Done, healthy, or stopped by a signal. */
  done: 0,
  /** Something failed, or is not healthy. */
  failed: 1,
  /** The command line cannot be understood. */
  usage: 2,
} as const;
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];

export const usageError = (message: string): CliError => new CliError(message, exitCodes.usage);

/**
 * One sentence for an error that has its cause outside of the code: a database that is away, settings that are wrong.
 * A bug keeps its stack.
 */
export function explain(error: unknown): string {
  if (!isErrorLike(error)) return String(error);
  if (isUnavailable(error)) return `${error.message}. Is the server running, and is the queue's dsn right?`;
  if (error instanceof CliError || isDeliberate(error)) return error.message;
  if (error.severity !== undefined)
    return `The database refuses: ${error.message}. Is the queue's dsn right?`;
  return error.stack ?? `${error.name}: ${error.message}`;
}

interface ErrorLike extends Error {
  /** PostgreSQL's own errors have one. */
  severity?: string;
}

const isUnavailable = (error: unknown): boolean =>
  error instanceof SaqError && error.code === "database_unavailable";

const isErrorLike = (error: unknown): error is ErrorLike =>
  typeof error === "object" && error !== null && "message" in error;

/** Classes of an application's or the engine's own, thrown on purpose; those of the language are bugs. */
const isDeliberate = ({ name }: Error): boolean =>
  !/^(Error|AggregateError|EvalError|RangeError|ReferenceError|SyntaxError|TypeError|URIError|DatabaseError|error)$/.test(
    name,
  );
