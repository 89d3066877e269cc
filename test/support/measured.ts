/** Tells a measured time while the tests run; the assertion beside it holds the limit. */
export function measured(what: string, ms: number): void {
  process.stderr.write(`[measured] ${what}: ${(ms / 1000).toFixed(1)} s\n`);
}
