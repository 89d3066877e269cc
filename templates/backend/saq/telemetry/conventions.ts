/**
 * Names of OpenTelemetry's conventions for messaging (version 1.45), copied: the package that has them has no other
 * use here. Attributes that the conventions do not know begin with `saq.`.
 */
import { parseQueueAddress } from "../queue-address.js";
import { isNoRetry } from "../tasks/no-retry.js";
import type { Attributes } from "./otel-api.js";

export const attribute = {
  system: "messaging.system",
  operationName: "messaging.operation.name",
  operationType: "messaging.operation.type",
  destination: "messaging.destination.name",
  messageId: "messaging.message.id",
  batchCount: "messaging.batch.message_count",
  clientId: "messaging.client.id",
  serverAddress: "server.address",
  serverPort: "server.port",
  errorType: "error.type",
  /** Name of the task. */
  function: "saq.job.function",
  /** Number of attempts that were started, this one included. */
  attempts: "saq.job.attempts",
  /** The status that the attempt has recorded: `complete`, `failed`, `aborted`, or `queued` if the job runs again. */
  status: "saq.job.status",
  /** The result of a settlement: `applied`, or the reason why the status was not recorded. */
  settlement: "saq.settle.result",
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

/** The conventions' types of our operations. */
const operationTypes = { publish: "send", claim: "receive", process: "process", settle: "settle" } as const;

/** Returns the attributes that all spans and metrics of an operation have. */
export const operation = (queue: QueueAddress, name: keyof typeof operationTypes): Attributes => ({
  [attribute.system]: "saq",
  [attribute.operationName]: name,
  [attribute.operationType]: operationTypes[name],
  [attribute.destination]: queue.name,
  ...serverOf(queue.dsn),
});

/** The parts of a queue's configuration that attributes are made of. */
export interface QueueAddress {
  name: string;
  dsn: string;
}

/** Returns the attributes of the server that a DSN names; none if it names several, of which one is used. */
function serverOf(dsn: string): Attributes {
  const { storage, address } = parseQueueAddress(dsn);
  if (storage === "redis" && address.socketPath !== undefined)
    return { [attribute.serverAddress]: address.socketPath };
  const [server, ...others] = storage === "redis" ? address.nodes : address.hosts;
  const isOneOfSeveral = others.length > 0 || (storage === "redis" && address.kind !== "single");
  if (!server || isOneOfSeveral) return {};
  // The port of a Unix socket is part of the name of its file.
  const isSocket = server.host.startsWith("/");
  return {
    [attribute.serverAddress]: server.host,
    ...(isSocket ? {} : { [attribute.serverPort]: server.port }),
  };
}

/** Boundaries of the buckets of durations, s. */
export const durationBuckets = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];

/**
 * Returns the class of an error for `error.type`: its code, or its name. There are few different ones. It is `NoRetry`
 * also for a subclass of it, so that it shows that the job is not retried.
 */
export function errorType(error: unknown): string {
  if (isNoRetry(error)) return "NoRetry";
  const { code, name } = (error ?? {}) as { code?: unknown; name?: unknown };
  if (typeof code === "string" && code !== "") return code;
  return typeof name === "string" && name !== "" ? name : "_OTHER";
}
