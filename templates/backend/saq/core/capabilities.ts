/** What a storage can do, and the check of what a queue and its calls need. */
import { ConfigError } from "../errors.js";

/** Declared by each broker. What it cannot do is refused where it is asked for; only `bulk` changes how it is done. */
export interface Capabilities {
  /** Name of the storage in error messages. */
  readonly storage: string;
  /** Jobs can be stored and finished in the caller's own transaction: the option `client`, and `ctx.finish`. */
  readonly transactions: boolean;
  /** Workers are notified of new jobs, and waiting callers of ends. Without it, the queue needs a `pollInterval`. */
  readonly push: boolean;
  /** The option `groupKey` of a job. */
  readonly groups: boolean;
  /** The option `priority` of a job. */
  readonly priorities: boolean;
  /** Many jobs are stored in one round trip. Without it, `enqueueMany` stores one after another. */
  readonly bulk: boolean;
}

/** What Redis can do, known before a connection is made: `defineQueue` refuses what it cannot do. */
export const redisCapabilities: Capabilities = {
  storage: "Redis",
  transactions: false,
  push: true,
  groups: false,
  priorities: false,
  bulk: true,
};

type CheckedCapability = Exclude<keyof Capabilities, "storage" | "bulk">;

/** The options that need each capability, as users know them. */
const needs: Record<CheckedCapability, { description: string; alternative: string }> = {
  transactions: {
    description: "transactions (the option client, ctx.finish)",
    alternative: "Store the job after your transaction has committed, and return the result from the task.",
  },
  groups: {
    description: "groups of jobs (groupKey, groupConcurrency)",
    alternative: "Leave groupKey and groupConcurrency out.",
  },
  push: { description: "notifications", alternative: "Set pollInterval, for instance to 1." },
  priorities: {
    description: "priorities",
    alternative: "Leave priority and priorities out, or use one queue per priority.",
  },
};

/**
 * `at` names the call or the queue, `alternative` says what to do instead.
 *
 * @throws ConfigError if the storage does not have the capability
 */
export function requireCapability(
  at: string,
  capability: CheckedCapability,
  capabilities: Capabilities,
  alternative = needs[capability].alternative,
): void {
  if (capabilities[capability]) return;
  const { description } = needs[capability];
  throw new ConfigError(`${at}: ${capabilities.storage} has no ${description}. ${alternative}`);
}
