import { randomInt } from "node:crypto";

/**
 * Returns a random token for a claim, from the whole range of int4: two claims get the same token once in two thousand
 * million claims. The lowest bit says that jobs of the claim may have to wait before they are started (`mayWait`).
 */
export const newToken = (mayWait = false): number => (randomInt(-(2 ** 31), 2 ** 31) & ~1) | Number(mayWait);

export const isClaimedAhead = (token: number): boolean => (token & 1) === 1;
