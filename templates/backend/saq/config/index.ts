/** The configuration of an application: its queues, their scheduled tasks and the web UI. */
export { defineQueue } from "./define-queue.js";
export { defineSaq, type SaqConfig, type SaqOptions } from "./define-saq.js";
export { checkJobOptions, onlyJobOptions } from "./job-options.js";
export type { QueueConfig, QueueOptions, QueueSettings } from "./queue-options.js";
export { type CronEntry, type CronJob, type CronOptions, cronJob, cronKey } from "./scheduled-tasks.js";
