/**
 * Decodes a queue name or job key that stands in the path of a URL. Three names cannot stand there as they are:
 * browsers and `fetch` resolve `.` and `..`, even if they are encoded as `%2E`, and an empty segment matches no route.
 * They get the prefix `~`. Names that look like such an encoded name get one more `~` (`~.` becomes `~~.`).
 * static/segment.js is the encoder.
 */
export const readSegment = (text: string): string => (/^~+\.{0,2}$/.test(text) ? text.slice(1) : text);
