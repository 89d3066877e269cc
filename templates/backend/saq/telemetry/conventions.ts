/**
 * Names of OpenTelemetry's conventions for messaging (version 1.45), copied: the package that has them has no other
 * use here. Attributes that the conventions do not know begin with `saq.`.
 */
import type { Attributes } from "./otel-api.js";

export const attribute = {
  system: "messaging.system",
  operationName: "messaging.operation.name",
  operationType: "messaging.operation.type",
  destination: "messaging.destination.name",
  messageId: "messaging.message.id",
  batchCount: "messaging.batch.message_count",
  clientId: "messaging.client.id",
  errorType: "error.type",
  /** Name of the task. */
  function: "saq.job.function",
  /** Number of attempts that were started, this one included. */
  attempts: "saq.job.attempts",
  /** The status that the attempt has recorded: `complete`, `failed`, `aborted`, or `queued` if the job runs again. */
  status: "saq.job.status",
  /** Why the job was not stored, for example `key_alive`. */
  refusal: "saq.enqueue.refusal",
  /** Number of the jobs of a bulk that were not stored. */
  refused: "saq.enqueue.refused",
  /** On a link: what it points to. */
  link: "saq.link",
  /** State of jobs in a gauge, as `queue.counts` names it. */
  state: "saq.job.state",
  slotState: "saq.slot.state",
} as const;

/** Returns the attributes that all spans and metrics of an operation have. */
export const operation = (queueName: string, name: "publish" | "process"): Attributes => ({
  [attribute.system]: "saq",
  [attribute.operationName]: name,
  [attribute.operationType]: name === "publish" ? "send" : "process",
  [attribute.destination]: queueName,
});

/** Boundaries of the buckets of durations, s. */
export const durationBuckets = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];

/** Returns the class of an error for `error.type`: its code, or its name. There are few different ones. */
export function errorType(error: unknown): string {
  const { code, name } = (error ?? {}) as { code?: unknown; name?: unknown };
  if (typeof code === "string" && code !== "") return code;
  return typeof name === "string" && name !== "" ? name : "_OTHER";
}
