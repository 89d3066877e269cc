/** The engine's second entry point, for tests only. It works with any test runner. */
export { type DrainOptions, drain, type Run } from "./drain.js";
export { enqueued, expectEnqueued, type PayloadMatch } from "./enqueued.js";
export type { LogLine } from "./log.js";
export { type EnqueuedByTask, type RunTaskOptions, runTask, type TaskRun } from "./run-task.js";
