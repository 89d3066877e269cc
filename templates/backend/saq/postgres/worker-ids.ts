/** The ids of our workers. What an id begins with says how others can tell whether its worker lives. */
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";

/**
 * - `lock`: it holds an advisory lock that ends with its process;
 * - `lease`: behind a transaction pooler, where no lock can be held: it renews its row, and ends its jobs when it
 *   cannot;
 * - `row`: Python's. Its row is a sign of life, and its absence proves nothing.
 */
export type Liveness = "lock" | "lease" | "row";

/**
 * Others take over the jobs of a worker without a lock that long after its row's time. It ends them itself a few
 * seconds earlier, so that no job runs twice beside a worker that stood still.
 */
export const leaseGraceSeconds = 21;
const prefixes = { lock: "ts-", lease: "lease-" } as const;
/** Also a name that somebody gives a Python worker may begin so, and any host's: ours have all of this. */
const ours = /^(ts-|lease-).+-\d+-[0-9a-f]{8}$/s;

export function livenessOf(workerId: string): Liveness {
  const prefix = ours.exec(workerId)?.[1];
  return prefix === prefixes.lock ? "lock" : prefix === prefixes.lease ? "lease" : "row";
}

export const newWorkerId = (liveness: "lock" | "lease"): string =>
  `${prefixes[liveness]}${hostname().slice(0, 40)}-${process.pid}-${randomBytes(4).toString("hex")}`;
