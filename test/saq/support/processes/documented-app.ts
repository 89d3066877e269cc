/** The queue of the samples in docs/cli.md. QUEUE_DSN names its database. */
import { createSaq, defineQueue, defineSaq } from "../../../../templates/backend/saq/index.js";

const tasks = {
  sendEmailTask: async (_ctx: unknown, { to }: { to: string }) => ({ to }),
  exampleTask: async (_ctx: unknown, { message }: { message: string }) => ({ status: "success", message }),
};

export const documentedQueue = (dsn: string) =>
  defineQueue({ name: "default", dsn, tasks, startTimeout: 1, defaults: { retries: 3, retryDelay: 3_600 } });

export const saq = createSaq(defineSaq({ queues: [documentedQueue(String(process.env.QUEUE_DSN))] }));
