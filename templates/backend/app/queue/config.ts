/** Queue configuration: where jobs are stored, how workers run them, and which tasks exist. */
import { cronJob, defineQueue, defineSaq } from "../../saq/index.js";
import { basicAuth } from "../basic-auth.js";
import { logger } from "../logger.js";
import { settings } from "../settings.js";
import { delayedTask, exampleTask, nightlyCleanup, sendEmailTask } from "./tasks.js";

export const defaultQueue = defineQueue({
  name: "default",
  dsn: settings.queueDsn,
  // Number of jobs that one worker runs at the same time.
  concurrency: 10,
  // Minimum and maximum number of database connections per process.
  minSize: 1,
  maxSize: 3,
  // For all jobs of this queue. task({ ... }) overrides them, and the options of enqueue() override both.
  // timeout and ttl are in seconds; retries is the maximum number of attempts.
  defaults: { timeout: 10, ttl: 600, retries: 1 },
  tasks: { exampleTask, sendEmailTask, delayedTask, nightlyCleanup },
  // cron is "minute hour day month weekday". Each time, one job is enqueued, no matter how many workers run.
  scheduledTasks: [cronJob("nightlyCleanup", { cron: "0 3 * * *", timezone: "UTC" })],
});

export const saqConfig = defineSaq({
  queues: [defaultQueue],
  // The web UI asks for AUTH_USER and AUTH_PASSWORD. If they are not set, it is off in production, and in development
  // it is open to this machine only.
  web: {
    enabled: !settings.isProduction || settings.auth !== undefined,
    path: "/saq",
    guards: settings.auth ? [basicAuth(settings.auth)] : [],
  },
  logger,
});

/** Gives `req.taskQueues` the types of these queues and tasks. */
declare module "../../saq/index.js" {
  interface Application {
    config: typeof saqConfig;
  }
}
