/** The engine's second door, for tests only. Works with any test runner. */
export { type DrainOptions, drain, type Run } from "./drain.js";
export { enqueued, expectEnqueued, type PayloadMatch } from "./enqueued.js";
export type { LogLine } from "./log.js";
export { type EnqueuedByTask, type RunTaskOptions, runTask, type TaskRun } from "./run-task.js";
