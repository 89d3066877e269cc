/**
 * Names in the path of a URL. Browsers and `fetch` resolve `.` and `..`, encoded as `%2E` too, and an empty segment
 * meets no route: these three have a `~` before them, and so has what would be mistaken for them (`~.` is `~~.`).
 * static/segment.js writes them.
 */
export const readSegment = (text: string): string => (/^~+\.{0,2}$/.test(text) ? text.slice(1) : text);
