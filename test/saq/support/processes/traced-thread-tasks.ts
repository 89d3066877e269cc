/** A task that runs in a thread without an SDK of OpenTelemetry, and enqueues jobs there. */
import { Queue, task } from "../../../../templates/backend/saq/index.js";

export interface Target {
  url: string;
  name: string;
  /** Number of jobs to enqueue. */
  jobs: number;
  enableOtel?: boolean;
}

/** Enqueues jobs of the task `child` by a queue that belongs to the thread. Returns their keys. */
export async function enqueueChildren({ url, name, jobs, ...options }: Target): Promise<string[]> {
  const queue = Queue.fromUrl(url, { name, ...options });
  try {
    if (jobs === 1) return [(await queue.enqueue("child")).key];
    const stored = await queue.enqueueMany(Array.from({ length: jobs }, () => ({ task: "child" })));
    return stored.map((job) => String(job?.key));
  } finally {
    await queue.close();
  }
}

export const enqueues = task({
  thread: import.meta.url,
  run: (_ctx, target: Target) => enqueueChildren(target),
});
