/**
 * How long a sweeper has been able to see the database without a gap. After a pause of the database, of the way to it or
 * of this process everybody's signs of life look old, and results wait to be recorded: before others are judged, they
 * get time to come back (5.2).
 */
export class Sight {
  #since = Number.NEGATIVE_INFINITY;
  #last = Number.NEGATIVE_INFINITY;
  #lastWall = 0;
  #gapMs = 0;

  /** `lastTrouble`: when a statement of this process failed for want of the database, by performance.now(). */
  constructor(private readonly server: { readonly lastTrouble: number }) {}

  /** The database has answered a look. More than `gapSeconds` after the last one, it is the first of a new sight. */
  looked(gapSeconds: number): void {
    this.#gapMs = gapSeconds * 1_000;
    if (this.#isBroken()) this.#since = performance.now();
    this.#last = performance.now();
    this.#lastWall = Date.now();
  }

  /** It has lasted that long, and nothing says that it has ended since the last look. */
  lasts(seconds: number): boolean {
    return !this.#isBroken() && this.#last - this.#since >= seconds * 1_000;
  }

  #isBroken(): boolean {
    // A machine that sleeps stops the one clock and not the other; a clock that was set costs a little patience.
    const gap = Math.max(performance.now() - this.#last, Date.now() - this.#lastWall);
    return gap > this.#gapMs || this.server.lastTrouble > this.#last;
  }
}
