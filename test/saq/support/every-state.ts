/** Fills a queue with one job in every state. */
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { claim, settle, settlement } from "./scenario.js";

/** Creates one job in every state. Returns their keys by state. */
export async function populate(
  queue: Queue<{ hello: (ctx: unknown, payload?: object) => string }>,
): Promise<Record<string, string>> {
  const keys: Record<string, string> = {};
  const next = async (state: string, options: object = {}) => {
    keys[state] = (await queue.enqueue("hello", { state }, options)).key;
    return keys[state];
  };
  for (const status of ["complete", "failed", "aborted"] as const) {
    await next(status);
    const [claimed] = await claim(queue);
    if (status === "aborted") await queue.abort(keys.aborted ?? "");
    if (claimed) await settle(queue, settlement(claimed, status, { completed: 5 }));
  }
  await next("active");
  await claim(queue);
  await next("aborting");
  await claim(queue);
  await queue.abort(keys.aborting ?? "");
  await next("scheduled", { scheduled: inSeconds(600) });
  await next("queued");
  return keys;
}
