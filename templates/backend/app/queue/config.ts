/** Queue configuration: where jobs are stored, how they run, which tasks there are. */
import { cronJob, defineQueue, defineSaq } from "../../saq/index.js";
import { basicAuth } from "../basic-auth.js";
import { logger } from "../logger.js";
import { settings } from "../settings.js";
import { delayedTask, exampleTask, nightlyCleanup, sendEmailTask } from "./tasks.js";

export const defaultQueue = defineQueue({
  name: "default",
  dsn: settings.queueDsn,
  // Jobs that one worker runs at a time.
  concurrency: 10,
  // Connections of one process to the database.
  minSize: 1,
  maxSize: 3,
  // For all jobs of this queue; task({ ... }) and the options of enqueue() come before them. Seconds, except retries.
  defaults: { timeout: 10, ttl: 600, retries: 1 },
  tasks: { exampleTask, sendEmailTask, delayedTask, nightlyCleanup },
  // Minute, hour, day, month, weekday. One run each time, however many workers there are.
  scheduledTasks: [cronJob("nightlyCleanup", { cron: "0 3 * * *", timezone: "UTC" })],
});

export const saqConfig = defineSaq({
  queues: [defaultQueue],
  // Open to this machine in development; anywhere else it needs AUTH_USER and AUTH_PASSWORD.
  web: {
    enabled: !settings.isProduction || settings.auth !== undefined,
    path: "/saq",
    guards: settings.auth ? [basicAuth(settings.auth)] : [],
  },
  logger,
});

/** Tells the compiler which queues and tasks `req.taskQueues` has. */
declare module "../../saq/index.js" {
  interface Application {
    config: typeof saqConfig;
  }
}
