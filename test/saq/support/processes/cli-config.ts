/** A module that exports only the configuration. */
import { defineQueue, defineSaq } from "../../../../templates/backend/saq/index.js";

export const saqConfig = defineSaq({
  queues: [defineQueue({ name: "default", dsn: String(process.env.QUEUE_DSN), tasks: {} })],
});
