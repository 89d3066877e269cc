// Numbers, times and stored values as text for people.

const whole = new Intl.NumberFormat();
const dayAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const timeOnly = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

/** @param {number | undefined} value */
export const number = (value) => whole.format(value ?? 0);

/**
 * Any number may be stored as a time; a Date holds less. 0 is no time yet.
 *
 * @param {number | undefined} ms epoch
 * @returns {ms is number}
 */
export const isTime = (ms) => ms !== undefined && ms > 0 && ms <= 8.64e15;

/**
 * In the browser's locale; without the date when it is today. Empty when there is no time yet.
 *
 * @param {number | undefined} ms epoch
 */
export function shortTime(ms) {
  if (!isTime(ms)) return "";
  const date = new Date(ms);
  return (date.toDateString() === new Date().toDateString() ? timeOnly : dayAndTime).format(date);
}

/** @param {number | undefined} ms epoch */
export const fullTime = (ms) => (isTime(ms) ? dayAndTime.format(new Date(ms)) : "");

const units = /** @type {const} */ ([
  ["d", 86_400],
  ["h", 3600],
  ["min", 60],
  ["s", 1],
]);

/**
 * The two largest units: `2 h 5 min`, `10 min`, `4.2 s`, `12 ms`.
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
 * One line of a value, for a table cell.
 *
 * @param {unknown} value
 */
export function oneLine(value) {
  if (value === null || value === undefined) return "";
  const text = JSON.stringify(value);
  return text.length > 140 ? `${text.slice(0, 140)}…` : text;
}

/**
 * JSON text on several lines. What cannot be read stays as it came.
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
