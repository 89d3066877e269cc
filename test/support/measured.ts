/** Prints a measured time while the tests run. It checks no limit. */
export function measured(what: string, ms: number): void {
  process.stderr.write(`[measured] ${what}: ${(ms / 1000).toFixed(1)} s\n`);
}
