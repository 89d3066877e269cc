/**
 * Measures for how long a sweeper has reached the database without a gap. After a pause of the database, of the network
 * or of this process, the signs of life of all workers look old, and results wait to be recorded. The workers get time
 * to come back before a sweeper decides about their jobs.
 */
export class OutageDetector {
  #reachableSince = Number.NEGATIVE_INFINITY;
  #lastResponseAt = Number.NEGATIVE_INFINITY;
  #lastResponseWallMs = 0;
  #gapMs = 0;

  /** `lastFailureAt`: when the database was last unreachable for a statement of this process, by performance.now(). */
  constructor(private readonly pool: { readonly lastFailureAt: number }) {}

  /**
   * Notes that the database has answered. More than `gapSeconds` after the previous answer, the measurement starts
   * anew.
   */
  onResponse(gapSeconds: number): void {
    this.#gapMs = gapSeconds * 1_000;
    if (this.#hasGap()) this.#reachableSince = performance.now();
    this.#lastResponseAt = performance.now();
    this.#lastResponseWallMs = Date.now();
  }

  /** Returns true if the database has been reachable without a gap for `seconds`, as far as is known. */
  reachableFor(seconds: number): boolean {
    return !this.#hasGap() && this.#lastResponseAt - this.#reachableSince >= seconds * 1_000;
  }

  #hasGap(): boolean {
    // While the machine sleeps, performance.now() may stop, but Date.now() does not. A wall clock that was set forward
    // looks like a gap, which only delays the sweeper a little.
    const gap = Math.max(performance.now() - this.#lastResponseAt, Date.now() - this.#lastResponseWallMs);
    return gap > this.#gapMs || this.pool.lastFailureAt > this.#lastResponseAt;
  }
}
