/** The ids of workers. The beginning of an id says how others can tell whether its worker lives. */
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";

/**
 * - `lock`: the worker holds an advisory lock that ends with its process;
 * - `lease`: the worker is behind a transaction pooler, where it cannot hold a lock: it renews its row, and ends its
 *   jobs when it cannot renew it;
 * - `row`: a Python worker. Its row is a sign of life, but a missing row proves nothing.
 */
export type Liveness = "lock" | "lease" | "row";

/**
 * Other workers take over the jobs of a worker without a lock this many seconds after its row has expired. The worker
 * ends its jobs itself a few seconds earlier, so that no job runs a second time while a worker that was paused still
 * runs it.
 */
export const leaseGraceSeconds = 21;
const prefixes = { lock: "ts-", lease: "lease-" } as const;
/**
 * The id of a Python worker may begin with these prefixes too, for example when it is a host's name. So the whole form
 * of our ids is checked.
 */
const ownIdPattern = /^(ts-|lease-).+-\d+-[0-9a-f]{8}$/s;

export function livenessOf(workerId: string): Liveness {
  const prefix = ownIdPattern.exec(workerId)?.[1];
  return prefix === prefixes.lock ? "lock" : prefix === prefixes.lease ? "lease" : "row";
}

export const newWorkerId = (liveness: "lock" | "lease"): string =>
  `${prefixes[liveness]}${hostname().slice(0, 40)}-${process.pid}-${randomBytes(4).toString("hex")}`;
