/** Fills a queue with one job in every state. */
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { claim, settle, settlement, type TestDatabase } from "./scenario.js";

/** Creates one job in every state. Returns their keys by state. */
export async function populate(
  database: TestDatabase,
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
    if (claimed)
      await settle(queue, settlement(claimed, status === "aborted" ? "failed" : status, { completed: 5 }));
    if (status === "aborted")
      await database.query("update saq_jobs set status = 'aborted' where key = $1", [keys.aborted]);
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
