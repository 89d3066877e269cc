/** The engine's one door. Everything else in this folder may change from one version to the next. */
export {
  defineQueue,
  defineSaq,
  type QueueConfig,
  type QueueOptions,
  type SaqConfig,
  type SaqOptions,
} from "./config/index.js";
export {
  ConfigError,
  InvalidJobError,
  InvalidPayloadError,
  JobGoneError,
  SaqError,
  type SaqErrorCode,
} from "./errors.js";
export { createSaq, type Health, type Saq, type TaskQueues } from "./express/create-saq.js";
export { Job } from "./handle.js";
export { inSeconds, type JobOptions, type Status } from "./job.js";
export type { Logger } from "./logger.js";
export { type EnqueueAnswer, type EnqueueEntry, Queue, type QueueInfo } from "./queue.js";
export {
  type Context,
  type EnqueueOptions,
  type StandardSchema,
  type ThreadContext,
  type TransactionClient,
  task,
} from "./task.js";
export { runWorkers, Worker, type WorkerOptions } from "./worker/index.js";
