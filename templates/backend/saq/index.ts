/** The engine's one door. Everything else in this folder may change from one version to the next. */

export type { EnqueueAnswer, EnqueueEntry, QueueCounters, QueueInfo } from "./answers.js";
export {
  type CronJob,
  type CronOptions,
  cronJob,
  defineQueue,
  defineSaq,
  type QueueConfig,
  type QueueOptions,
  type SaqConfig,
  type SaqOptions,
} from "./config/index.js";
export type { BeforeEnqueue, NewJobFields } from "./enqueuing.js";
export {
  ConfigError,
  InvalidJobError,
  InvalidPayloadError,
  InvalidResultError,
  InvalidUrlError,
  JobGoneError,
  JobLostError,
  PoisonDocumentError,
  SaqError,
  type SaqErrorCode,
  TimeoutError,
} from "./errors.js";
export { createSaq, type Health, type Saq, type TaskQueues } from "./express/create-saq.js";
export { type FromUrlOptions, Queue } from "./from-url.js";
export { Job, type JobOverrides } from "./handle.js";
export type { AfterProcessHook, BeforeProcessHook, ShutdownHook, StartupHook } from "./hooks.js";
export { inSeconds, type JobOptions, type Status } from "./job.js";
export type { Logger } from "./logger.js";
export { type MonitorOptions, monitoredJob } from "./monitored-job.js";
export {
  afterProcessLogger,
  beforeProcessLogger,
  shutdownLogger,
  startupLogger,
  timingAfterProcess,
  timingBeforeProcess,
} from "./ready-hooks.js";
export { JobError, type ListenOptions, type MapOptions } from "./results.js";
export type { ScheduleInfo, ScheduleRun } from "./schedules.js";
export {
  type ApplyOptions,
  type Context,
  type EnqueueOptions,
  type ThreadContext,
  type TransactionClient,
  task,
  type WorkerContext,
} from "./task.js";
export type { AbortAnswer, FinishAnswer, JobUpdate, RetryAnswer, UpdateAnswer } from "./transitions.js";
export type { StandardSchema } from "./validation.js";
export { runWorkers, Worker, type WorkerHealth, type WorkerOptions } from "./worker/index.js";
