/** Time limits that a worker and its sweepers derive from the configuration of a queue. */
import type { QueueConfig } from "../config/index.js";
import type { Queue } from "../queue/queue.js";

/**
 * Seconds that other workers wait beyond a job's timeout or heartbeat before they end the job: its task may run until
 * the hard deadline, and recording its end may take up to `recordSeconds`.
 */
export const sweepGraceSeconds = ({ config, broker }: Pick<Queue, "config" | "broker">): number =>
  config.cancellationHardDeadline + broker.recordSeconds;

/**
 * If storage takes longer than this to respond, s, the response may be out of date: other workers may own the jobs by
 * then. They always wait longer than this before they take over a job.
 */
export const maxResponseSeconds = ({ cancellationHardDeadline }: QueueConfig): number =>
  cancellationHardDeadline + 5;
