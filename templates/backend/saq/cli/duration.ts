/** Lengths of time on the command line, such as 90s, 10m, 2h or 7d. */

const unitSeconds: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3_600, d: 86_400 };

/** Returns the length in seconds; null if the text is not a number with one of these units. */
export function parseDuration(text: string): number | null {
  const [, count, unit = ""] = /^(\d+(?:\.\d+)?)([smhd])$/.exec(text) ?? [];
  return count === undefined ? null : Number(count) * (unitSeconds[unit] ?? Number.NaN);
}
