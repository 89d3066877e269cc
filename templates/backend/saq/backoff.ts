/** How long to wait before the next try. */

/** `first`, doubled for each try before, up to `longest`. */
export const doubled = (triesBefore: number, first: number, longest: number): number =>
  Math.min(first * 2 ** triesBefore, longest);

/** 0.1 s doubling to 5 s, each half random, so that many processes do not come back as one. */
export const backoffMs = (triesBefore: number): number =>
  doubled(triesBefore, 100, 5_000) * (0.5 + Math.random() / 2);
