import { randomInt } from "node:crypto";

/** The token of a claim, over all of int4: two of one value meet once in four thousand million claims. */
export const newToken = (): number => randomInt(-(2 ** 31), 2 ** 31);
