/** The public interface of the engine. Everything else in this folder may change from one version to the next. */

// Exported with a star, because only then can an application extend the interface in it.
export * from "./application.js";
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
export type { FailedAttempt } from "./core/attempt-history.js";
export type { BulkAction, SkipReason } from "./core/bulk-change.js";
export { inSeconds, type JobOptions, type Status } from "./core/job.js";
export type { JobSelection, JobState } from "./core/job-selection.js";
export type { TransactionClient } from "./core/transaction-client.js";
export type {
  AbortAnswer,
  DeleteAnswer,
  FinishAnswer,
  JobUpdate,
  RetryAnswer,
  RunNowAnswer,
  UpdateAnswer,
} from "./core/transitions.js";
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
export type { ServerLifespanOptions } from "./express/server-lifespan.js";
export { type FromUrlOptions, Queue } from "./from-url.js";
export type { Logger, LogMethod } from "./logger.js";
export { type PostgresAddress, parsePostgresAddress } from "./postgres-address.js";
export type { ChangeFilter, ChangeOptions, ChangeResult } from "./queue/bulk-editor.js";
export type { BeforeEnqueue, NewJobFields } from "./queue/enqueue-pipeline.js";
export { Job, type JobOverrides } from "./queue/job-handle.js";
export { JobError, type ListenOptions, type MapOptions } from "./queue/results.js";
export type { ScheduleInfo, ScheduleRun } from "./queue/schedules.js";
export type { EnqueueAnswer, EnqueueEntry, QueueCounters, QueueInfo } from "./queue/types.js";
export { parseQueueAddress, type QueueAddress } from "./queue-address.js";
export type {
  AfterProcessHook,
  AroundProcessHook,
  BeforeProcessHook,
  ShutdownHook,
  StartupHook,
} from "./tasks/hooks.js";
export { type MonitorOptions, monitoredJob } from "./tasks/monitored-job.js";
export { NoRetry } from "./tasks/no-retry.js";
export {
  afterProcessLogger,
  beforeProcessLogger,
  shutdownLogger,
  startupLogger,
  timingAfterProcess,
  timingBeforeProcess,
} from "./tasks/ready-hooks.js";
export type { Snooze } from "./tasks/snooze.js";
export {
  type ApplyOptions,
  type Context,
  type EnqueueOptions,
  type ThreadContext,
  task,
  type WorkerContext,
} from "./tasks/task.js";
export type { StandardSchema } from "./tasks/validation.js";
export type { ClaimMessage, EnqueueMessage, ProcessMessage, SettleMessage } from "./telemetry/channels.js";
export { runWorkers, Worker, type WorkerHealth, type WorkerOptions } from "./worker/index.js";
