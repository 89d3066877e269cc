// Encodes and decodes a queue name or job key in the path of a URL. Three names cannot stand there as they are:
// browsers resolve `.` and `..`, even if they are encoded as `%2E`, and an empty segment matches no route. They get the
// prefix `~`. Names that look like such an encoded name get one more `~` (`~.` becomes `~~.`). The server decodes them
// in ../segment.ts.

/** @param {string} name */
export const segment = (name) => encodeURIComponent(/^~*\.{0,2}$/.test(name) ? `~${name}` : name);

/** @param {string} text the segment as it is in the path */
export function readSegment(text) {
  const name = decodeURIComponent(text);
  return /^~+\.{0,2}$/.test(name) ? name.slice(1) : name;
}
