// Formats numbers, times and stored values as readable text.

const whole = new Intl.NumberFormat();
const dayAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const timeOnly = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** @param {number | undefined} value */
export const number = (value) => whole.format(value ?? 0);

/**
 * Returns true for a time that can be shown. 0 means that there is no time yet. A job may contain any number as a time,
 * but the range of a Date is smaller.
 *
 * @param {number | undefined} ms milliseconds since the epoch
 * @returns {ms is number}
 */
export const isTime = (ms) => ms !== undefined && ms > 0 && ms <= 8.64e15;

/**
 * Formats a time in the browser's locale, without the date if it is today. Returns "" if there is no time yet.
 *
 * @param {number | undefined} ms milliseconds since the epoch
 */
export function shortTime(ms) {
  if (!isTime(ms)) return "";
  const date = new Date(ms);
  return (date.toDateString() === new Date().toDateString() ? timeOnly : dayAndTime).format(date);
}

/** @param {number | undefined} ms milliseconds since the epoch */
export const fullTime = (ms) => (isTime(ms) ? dayAndTime.format(new Date(ms)) : "");

const units = /** @type {const} */ ([
  ["d", 86_400],
  ["h", 3600],
  ["min", 60],
  ["s", 1],
]);

/**
 * Formats a duration with its two largest units: `2 h 5 min`, `10 min`, `4.2 s`, `12 ms`.
 *
 * @param {number} ms
 */
export function duration(ms) {
  if (ms < 1000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 10_000) return `${Number((ms / 1000).toFixed(1))} s`;
  let seconds = Math.floor(ms / 1000);
  const parts = [];
  for (const [unit, size] of units) {
    parts.push({ unit, count: Math.floor(seconds / size) });
    seconds %= size;
  }
  const first = parts.findIndex(({ count }) => count > 0);
  return parts
    .slice(first, first + 2)
    .filter(({ count }) => count > 0)
    .map(({ unit, count }) => `${number(count)} ${unit}`)
    .join(" ");
}

/**
 * Returns a value as one line of JSON for a table cell, at most 140 characters of it.
 *
 * @param {unknown} value
 */
export function oneLine(value) {
  if (value === null || value === undefined) return "";
  const text = JSON.stringify(value);
  return text.length > 140 ? `${text.slice(0, 140)}…` : text;
}

/**
 * Returns JSON text with line breaks and indentation. Text that is not valid JSON is returned unchanged.
 *
 * @param {unknown} text
 */
export function indented(text) {
  if (typeof text !== "string") return JSON.stringify(text, null, 2);
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
