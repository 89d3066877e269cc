/** The part of an application that only enqueues jobs. */
import {
  createSaq,
  defineQueue,
  defineSaq,
  type QueueOptions,
} from "../../../../templates/backend/saq/index.js";
import { testRedisUrl } from "../../../support/redis.js";
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

/**
 * Connects once, so that the engine has loaded the Redis client. jest refuses an `import()` between two tests, and a
 * concurrent test may be there when it connects first.
 */
export async function loadRedisClient(): Promise<void> {
  const { queue, close } = openQueue(await testRedisUrl());
  await queue.connect();
  await close();
}
