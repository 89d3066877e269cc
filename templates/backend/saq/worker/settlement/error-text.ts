/**
 * The text that is stored as a job's error. It is the stack, as SAQ stores its traceback, and what a stack does not
 * contain: the members of the error (code, errno, path), its causes, and the errors of an AggregateError.
 *
 *     TypeError: fetch failed
 *         at ...
 *
 *       Caused by: Error: connect ECONNREFUSED 127.0.0.1:9
 *           at ...
 *         { errno: -111, code: "ECONNREFUSED", syscall: "connect" }
 */
import { detailsOf, type ErrorDetails, memberText, shortened } from "./error-details.js";

/** Maximum length, characters: wherever a job is shown, its whole document is read. */
const maxLength = 65_536;

/** Returns the text for any value that a task throws. Never throws, and the text is never empty. */
export function errorText(thrown: unknown): string {
  try {
    return shortened(textOf(detailsOf(thrown)), maxLength);
  } catch {
    return "A task threw something that cannot be written as text";
  }
}

function textOf(details: ErrorDetails): string {
  const { cause, errors, errorCount } = details;
  const parts = [ownText(details)];
  if (cause) parts.push(indented(`Caused by: ${textOf(cause)}`));
  for (const [index, error] of errors.entries())
    parts.push(indented(`Error ${index + 1} of ${errorCount}: ${textOf(error)}`));
  if (errors.length < errorCount) parts.push(indented(`${errorCount - errors.length} more errors`));
  return parts.join("\n\n");
}

const indented = (text: string): string => `  ${text.replaceAll("\n", "\n  ")}`;

function ownText({ isError, name, message, stack, members }: ErrorDetails): string {
  if (!isError) return message;
  const shown = Object.entries(members).map(([member, value]) => `${member}: ${memberText(value)}`);
  const text = withHead(name, message, stack);
  return shown.length > 0 ? `${text}\n  { ${shown.join(", ")} }` : text;
}

/**
 * Returns the stack with the present name and message. A stack begins with those that the error had when it was
 * created; if they were set later, only the frames of the stack are used.
 */
function withHead(name: string, message: string, stack = ""): string {
  const at = stack.indexOf(message);
  // The message itself may contain frames, for instance those of another job's error.
  const frames = framesIn(stack, at < 0 ? 0 : at + message.length);
  if (at >= 0 && stack.slice(0, at + (message.length || frames)).includes(name)) return stack;
  const head = message ? `${name}: ${message}` : name;
  return frames < stack.length ? `${head}\n${stack.slice(frames)}` : head;
}

/** Returns where the first frame in the stack begins, at `from` or later; the length of the stack if there is none. */
function framesIn(stack: string, from: number): number {
  const found = stack.slice(from).search(/^[ \t]+at /m);
  return found < 0 ? stack.length : from + found;
}
