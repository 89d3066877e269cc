// Names in the path of a URL. Browsers resolve `.` and `..`, encoded as `%2E` too, and an empty segment meets no route:
// these three have a `~` before them, and so has what would be mistaken for them (`~.` is `~~.`). ../segment.ts reads
// them.

/** @param {string} name */
export const segment = (name) => encodeURIComponent(/^~*\.{0,2}$/.test(name) ? `~${name}` : name);

/** @param {string} text as it stands in the path */
export function readSegment(text) {
  const name = decodeURIComponent(text);
  return /^~+\.{0,2}$/.test(name) ? name.slice(1) : name;
}
