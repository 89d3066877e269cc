/** The text of an error for people: on the command line, and when a worker process cannot start. */
import { SaqError } from "./errors.js";

/**
 * Returns the text to print for an error. If the cause is outside the code (the database is down, a setting is wrong),
 * the text is the message without the stack. If the error is a bug, the text is the stack.
 */
export function explain(error: unknown): string {
  if (!isErrorLike(error)) return String(error);
  if (isUnreachable(error)) return `${error.message}. Is the server running, and is the queue's dsn right?`;
  if (isDeliberate(error)) return error.message;
  if (error.severity !== undefined)
    return `The database reports an error: ${error.message}. Is the queue's dsn right?`;
  return error.stack ?? `${error.name}: ${error.message}`;
}

interface ErrorLike extends Error {
  /** Set on errors that PostgreSQL reports. */
  severity?: string;
}

/** False for a server that answers and refuses to work: its message says what to do. */
const isUnreachable = (error: Error): boolean =>
  error instanceof SaqError &&
  error.code === "database_unavailable" &&
  error.message.includes("does not answer");

const isErrorLike = (error: unknown): error is ErrorLike =>
  typeof error === "object" && error !== null && "message" in error;

/**
 * True for error classes of the application or the engine, which are thrown on purpose. The language's own are bugs.
 */
const isDeliberate = ({ name }: Error): boolean => !otherErrors.test(name);

const otherErrors = /^((Aggregate|Eval|Range|Reference|Syntax|Type|URI)?Error|DatabaseError|error)$/;
