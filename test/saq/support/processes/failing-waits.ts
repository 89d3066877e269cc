/**
 * A process in which every kind of wait for a job fails, and the caller of each wait handles the error. Prints what
 * Node reported: unhandled rejections and warnings.
 */
import {
  type Context,
  createSaq,
  defineQueue,
  defineSaq,
  type ThreadContext,
} from "../../../../templates/backend/saq/index.js";

const [dsn = ""] = process.argv.slice(2);
const complaints: string[] = [];
process.on("unhandledRejection", (reason) => complaints.push(`unhandled: ${String(reason)}`));
process.on("warning", ({ name, message }) => complaints.push(`${name}: ${message}`));

const fails = async (_ctx: Context, { n }: { n: number }): Promise<number> => {
  throw new Error(`number ${n}`);
};
const doubles = async (_ctx: Context, { n }: { n: number }): Promise<number> => 2 * n;
const sleeps = async ({ signal }: Pick<ThreadContext, "signal">): Promise<null> => {
  await new Promise((resolve) => signal.addEventListener("abort", resolve));
  return null;
};
/** Thirty waits with one signal, to which the task adds thirty listeners of its own. */
const applies = async (ctx: Context): Promise<number[]> => {
  for (let n = 0; n < 30; n++) ctx.signal.addEventListener("abort", () => {});
  return Promise.all(Array.from({ length: 30 }, (_, n) => ctx.apply(doubles, { n })));
};

const tasks = { fails, doubles, sleeps, applies };
const define = <const Name extends string>(name: Name) =>
  defineQueue({ name, dsn, tasks, concurrency: 40, shutdownGracePeriod: 0 });
const saq = createSaq(defineSaq({ queues: [define("waits"), define("elsewhere")] }));
const queue = saq.taskQueues.get("waits");
const elsewhere = saq.taskQueues.get("elsewhere");
const failed: string[] = [];
const noted = (what: string, wait: Promise<unknown>) =>
  wait.then(
    () => failed.push(`${what}: no error`),
    (error: Error) => failed.push(`${what}: ${error.name}`),
  );

const [worker] = saq.workers({ queues: ["waits"] });
if (!worker) throw new Error("no worker");
await worker.start();
const payloads = Array.from({ length: 30 }, (_, n) => ({ n }));
const results = await queue.apply("applies");
const hungUp = new AbortController();
const { signal } = hungUp;
await elsewhere.enqueue("doubles", { n: 1 }, { key: "theirs", scheduled: Date.now() / 1_000 + 3_600 });
await Promise.all([
  noted("apply", queue.apply("fails", { n: 1 })),
  noted("map", queue.map("fails", payloads)),
  noted("map under a signal", queue.map("fails", payloads, { signal })),
  noted("another queue's key", queue.apply("doubles", { n: 1 }, { key: "theirs" })),
  noted(
    "map with another queue's key",
    queue.map("doubles", payloads, { each: ({ n }) => (n === 3 ? { key: "theirs" } : {}) }),
  ),
  noted("too long", queue.apply("sleeps", undefined, { waitTimeout: 0.2 })),
  noted(
    "callback",
    (async () => {
      const job = await queue.enqueue("doubles", { n: 1 });
      await queue.listen([job.key], () => {
        throw new RangeError("by the callback");
      });
    })(),
  ),
]);
const waits = payloads.map((_, n) => noted(`signal ${n}`, queue.apply("sleeps", undefined, { signal })));
const mapped = noted(
  "map, signal",
  queue.map(
    "sleeps",
    payloads.map(() => undefined),
    { signal },
  ),
);
await queue.listen([], () => true, { timeout: 0.1 }).catch(() => {});
hungUp.abort(new RangeError("hung up"));
await Promise.all([...waits, mapped]);
const open = [
  noted("closed", queue.apply("sleeps")),
  noted("closed map", queue.map("sleeps", [undefined, undefined])),
];
// Wait until the jobs of both calls are stored.
while ((await queue.counts()).active + (await queue.counts()).queued < 3) await new Promise(setImmediate);
await saq.close();
await Promise.all(open);
// Node reports an unhandled rejection one turn of the event loop later.
await new Promise((resolve) => setTimeout(resolve, 100));
process.stdout.write(`${JSON.stringify({ complaints, failed, results: results.length })}\n`);
