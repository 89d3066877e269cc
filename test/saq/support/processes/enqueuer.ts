/** The part of an application that only enqueues jobs. */
import {
  createSaq,
  defineQueue,
  defineSaq,
  type QueueOptions,
} from "../../../../templates/backend/saq/index.js";
import { tasksWithThreads as tasks } from "./tasks.js";

export function openQueue(
  url: string,
  options: Omit<Partial<QueueOptions>, "tasks" | "name" | "dsn" | "scheduledTasks"> = {},
) {
  const saq = createSaq(
    defineSaq({ queues: [defineQueue({ name: "default", dsn: url, tasks, ...options })] }),
  );
  return { queue: saq.taskQueues.get("default"), close: () => saq.close() };
}
