/** Limits on the size of the parts of a job, in bytes of their JSON as UTF-8. */

/** Default of `maxBytes`: the limit for each payload, each result, each error and each meta. */
export const defaultMaxBytes = 16 * 1024 * 1024;

/** A document holds all four parts, and is a text of twice its bytes in this process. V8's longest string has 512 M. */
export const largestMaxBytes = 48 * 1024 * 1024;

/** Maximum bytes of the documents that one statement or script returns. A larger document is returned alone. */
export const maxReadBytes = 16 * 1024 * 1024;

/** The largest document that is read, in bytes. */
export const maxDocumentBytes = (maxBytes: number): number => 4 * maxBytes;

/** True if a text has more bytes than the limit. Counts them only if needed: no character has more than three bytes. */
export const isLarger = (text: string, maxBytes: number): boolean =>
  text.length * 3 > maxBytes && Buffer.byteLength(text) > maxBytes;

/**
 * Returns the size of a text, for limits on the sum of many texts: bytes, or characters if the text is short, because
 * counting the bytes of a short text costs more than it is worth.
 */
export const bytesOf = (text: string): number =>
  text.length < 1_024 ? text.length : Buffer.byteLength(text);

/** Returns the message of the error for a part that is too large. */
export function tooLarge(part: string, text: string, maxBytes: number): string {
  const bytes = Buffer.byteLength(text).toLocaleString("en-US");
  return (
    `${part} has ${bytes} bytes as JSON, at most ${maxBytes.toLocaleString("en-US")} can be stored. ` +
    "Store the data elsewhere and pass a reference to it, or raise maxBytes of the queue"
  );
}
