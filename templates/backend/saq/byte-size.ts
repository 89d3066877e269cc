/** How large the parts of a job may be, in bytes of their JSON as UTF-8. */

/** Default of `maxBytes`: the limit for each payload, result, error and meta. */
export const defaultMaxBytes = 16 * 1024 * 1024;

/** A document holds all four, and reaches this process as text of twice its bytes: V8's longest string has 512 M. */
export const largestMaxBytes = 48 * 1024 * 1024;

/** The largest document that is read. */
export const maxDocumentBytes = (maxBytes: number): number => 4 * maxBytes;

/** Whether a text has more bytes than that. Counts them only where it may: no character has more than three. */
export const isLarger = (text: string, maxBytes: number): boolean =>
  text.length * 3 > maxBytes && Buffer.byteLength(text) > maxBytes;

/**
 * Bytes of a text for a limit on many of them; characters where it is short, because counting costs more than they do.
 */
export const bytesOf = (text: string): number =>
  text.length < 1_024 ? text.length : Buffer.byteLength(text);

/** The text of a refusal. */
export function tooLarge(what: string, text: string, maxBytes: number): string {
  const bytes = Buffer.byteLength(text).toLocaleString("en-US");
  return (
    `${what} has ${bytes} bytes as JSON, at most ${maxBytes.toLocaleString("en-US")} can be stored. ` +
    "Store the data elsewhere and pass a reference to it, or raise maxBytes of the queue"
  );
}
