import { randomInt } from "node:crypto";

/**
 * The token of a claim, over all of int4: two of one value meet once in two thousand million claims. Its lowest bit
 * says that jobs of the claim may have to wait before they are started.
 */
export const newToken = (ahead = false): number => (randomInt(-(2 ** 31), 2 ** 31) & ~1) | Number(ahead);

export const isClaimedAhead = (token: number): boolean => (token & 1) === 1;
