/** How long to wait before the next retry. */

/** Returns `first`, doubled for each previous try, at most `max`. The unit is that of `first` and `max`. */
export const doubled = (previousTries: number, first: number, max: number): number =>
  Math.min(first * 2 ** previousTries, max);

/**
 * Returns a pause in ms: 0.1 s, doubled for each previous try, at most 5 s. Up to half of it is left out at random, so
 * that many processes do not reconnect at the same moment.
 */
export const backoffMs = (previousTries: number): number =>
  doubled(previousTries, 100, 5_000) * (0.5 + Math.random() / 2);
