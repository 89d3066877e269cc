/**
 * Compile-time checks of tasks and of their enqueueing (DESIGN 4). types.test.ts compiles this file and never runs it:
 * every `@ts-expect-error` must be an error, and everything else must compile.
 */

import { defineQueue, defineSaq } from "../../../../templates/backend/saq/config/index.js";
import { createSaq } from "../../../../templates/backend/saq/express/create-saq.js";
import type { Job } from "../../../../templates/backend/saq/queue/job-handle.js";
import type { Queue } from "../../../../templates/backend/saq/queue/queue.js";
import { NoRetry } from "../../../../templates/backend/saq/tasks/no-retry.js";
import {
  type Context,
  type EnqueueOptions,
  type PayloadOf,
  type ResultOf,
  task,
} from "../../../../templates/backend/saq/tasks/task.js";
import type { StandardSchema } from "../../../../templates/backend/saq/tasks/validation.js";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>): void => {};

async function greet(_ctx: Context, { name }: { name: string }) {
  return { greeting: `Hello ${name}` };
}
const nothing = async (_ctx: Context) => {};
const optional = (_ctx: Context, _payload?: { n?: number }) => 1;
const allOptional = (_ctx: Context, _payload: { n?: number }) => 1;
const perhaps = async (_ctx: Context, { n }: { n: number }) => (n > 1 ? { n } : undefined);
const silent = task({ run: async (ctx) => ctx.log.info({}, "said") });
const dated = (_ctx: Context, payload: { at: Date; tags: readonly string[] }) => ({
  at: payload.at,
  now: new Date(),
});
const odd = (_ctx: Context) => ({ map: new Map<string, number>(), f: () => 1, s: Symbol(), u: undefined });
declare const sized: StandardSchema<{ width: string }, { width: number }>;
const resize = task({
  input: sized,
  timeout: 120,
  run: async (ctx, { width }) => {
    same<typeof width, number>(true);
    await ctx.job.update({ progress: 0.5 });
    ctx.log.info("tick");
    ctx.log.warn("tick %d of %d", 1, 2);
    ctx.log.error(new Error("no"), "failed");
    ctx.log.debug({ width });
    // @ts-expect-error a number is neither a message nor fields
    ctx.log.info(1);
    // @ts-expect-error progress is a number
    await ctx.job.update({ progress: "half" });
    return [width];
  },
});
const onlyThrows = async ({ snooze }: Context) => {
  throw snooze(60);
};
const polls = task({
  run: async (ctx, { id }: { id: number }) => {
    if (id > 1) throw ctx.snooze(60);
    if (id < 0) throw new NoRetry("there is no such order", { cause: ctx.job.history[0]?.error });
    // @ts-expect-error seconds are a number
    ctx.snooze("60");
    return { id };
  },
});
const plain = task({ retries: 3, run: async (_ctx, { id }: { id: number }) => id });

const config = defineQueue({
  name: "default",
  dsn: "postgresql://h/d",
  tasks: { greet, nothing, optional, allOptional, dated, odd, resize, plain },
});
const saq = createSaq(
  defineSaq({
    queues: [config, defineQueue({ name: "mail", dsn: "postgresql://h/d", tasks: { send: nothing } })],
  }),
);

export async function enqueueing() {
  const queue = saq.taskQueues.get("default");
  // @ts-expect-error no such queue
  saq.taskQueues.get("defautl");
  // @ts-expect-error send is a task of the other queue
  await queue.enqueue("send");
  await saq.taskQueues.get("mail").enqueue("send");

  // Payloads.
  await queue.enqueue("greet", { name: "a" });
  // @ts-expect-error a typo in the payload
  await queue.enqueue("greet", { nmae: "a" });
  // @ts-expect-error the payload has no member age
  await queue.enqueue("greet", { name: "a", age: 1 });
  // @ts-expect-error name must be a string
  await queue.enqueue("greet", { name: 1 });
  // @ts-expect-error the payload is missing
  await queue.enqueue("greet");
  // @ts-expect-error unknown task
  await queue.enqueue("great", { name: "a" });
  await queue.enqueue("nothing");
  // @ts-expect-error the task takes no payload
  await queue.enqueue("nothing", { a: 1 });
  await queue.enqueue("optional");
  await queue.enqueue("optional", { n: 1 });
  await queue.enqueue("allOptional");
  await queue.enqueue("allOptional", {});
  // @ts-expect-error n must be a number
  await queue.enqueue("optional", { n: "1" });
  await queue.enqueue("plain", { id: 1 });
  // @ts-expect-error id must be a number
  await queue.enqueue("plain", { id: "1" });

  // Callers pass the schema's input.
  await queue.enqueue("resize", { width: "5" });
  // @ts-expect-error callers do not pass the schema's output
  await queue.enqueue("resize", { width: 5 });

  // Payload types are those after JSON: a Date arrives as a string, so callers pass a string.
  await queue.enqueue("dated", { at: "2026-01-01", tags: ["a"] });
  // @ts-expect-error JSON turns a Date into a string
  await queue.enqueue("dated", { at: new Date(), tags: [] });

  // Options are a separate argument (D-61).
  await queue.enqueue("greet", { name: "a" }, { timeout: 5, retryBackoff: 30, priority: 3 });
  // @ts-expect-error no such option
  await queue.enqueue("greet", { name: "a" }, { timout: 5 });
  // @ts-expect-error only the engine sets the status
  await queue.enqueue("greet", { name: "a" }, { status: "complete" });
  // @ts-expect-error an option is not part of the payload
  await queue.enqueue("greet", { name: "a", timeout: 5 });
}

export async function answers(names: string[], options: EnqueueOptions) {
  const queue = saq.taskQueues.get("default");
  // A generated key is always free. A key that the caller chooses may be taken, and then the result is null.
  const job = await queue.enqueue("greet", { name: "a" });
  same<typeof job, Job<{ greeting: string }>>(true);
  same<typeof job.result, { greeting: string } | null>(true);
  const keyed = await queue.enqueue("greet", { name: "a" }, { key: "k" });
  same<typeof keyed, Job<{ greeting: string }> | null>(true);
  // @ts-expect-error keyed may be null
  keyed.key;
  const perhapsKeyed = await queue.enqueue("greet", { name: "a" }, { key: names[0] });
  same<typeof perhapsKeyed, Job<{ greeting: string }> | null>(true);
  const notKeyed = await queue.enqueue("greet", { name: "a" }, { key: undefined, priority: 1 });
  same<typeof notKeyed, Job<{ greeting: string }>>(true);
  const byVariable = await queue.enqueue("greet", { name: "a" }, options);
  same<typeof byVariable, Job<{ greeting: string }> | null>(true);

  const answer = await queue.enqueueDetailed("greet", { name: "a" }, { key: "k" });
  if (answer.enqueued) same<typeof answer.job, Job<{ greeting: string }>>(true);
  else same<typeof answer.reason, "key_alive" | "scheduled_not_later" | "other_queue">(true);
  // @ts-expect-error the answer has a job only after a check of `enqueued`
  answer.job;

  await queue.enqueueMany([
    { task: "greet", payload: { name: "a" }, key: "k" },
    { task: "resize", payload: { width: "5" } },
    { task: "nothing" },
    { task: "allOptional" },
  ]);
  // @ts-expect-error the payload is missing
  await queue.enqueueMany([{ task: "greet" }]);
  // @ts-expect-error the payload of another task
  await queue.enqueueMany([{ task: "greet", payload: { width: "5" } }]);

  // @ts-expect-error no such count
  await queue.count("done");
}

export function resultsAsAfterJson() {
  same<ResultOf<typeof greet>, { greeting: string }>(true);
  same<ResultOf<typeof dated>, { at: string; now: string }>(true);
  same<ResultOf<typeof resize>, number[]>(true);
  same<ResultOf<typeof plain>, number>(true);
  // What a task throws does not change the type of its result.
  same<ResultOf<typeof polls>, { id: number }>(true);
  same<ResultOf<typeof onlyThrows>, never>(true);
  same<keyof ResultOf<typeof odd>, "map" | "u">(true);
  // A result of undefined is stored and returned as null.
  same<ResultOf<typeof nothing>, null>(true);
  same<ResultOf<typeof silent>, null>(true);
  same<ResultOf<typeof perhaps>, { n: number } | null>(true);
  same<PayloadOf<typeof dated>, { at: string; tags: string[] }>(true);
  same<PayloadOf<typeof resize>, { width: string }>(true);
}

export const insideATask = task({
  run: async (ctx) => {
    await ctx.enqueue(greet, { name: "a" });
    await ctx.enqueue(nothing);
    await ctx.enqueue(resize, { width: "5" }, { key: "k" });
    // @ts-expect-error a typo in the payload
    await ctx.enqueue(greet, { nmae: "a" });
    // @ts-expect-error ctx.enqueue takes the task itself, not its name, so that the compiler finds a renamed task
    await ctx.enqueue("greet", { name: "a" });
    // @ts-expect-error the job is read-only
    ctx.job.status = "complete";
  },
});

const threaded = task({
  thread: import.meta.url,
  run: async (ctx, { width }: { width: number }) => {
    await ctx.job.update({ progress: 0.5 });
    // @ts-expect-error a task in a thread cannot enqueue
    await ctx.enqueue(greet, { name: "a" });
    if (ctx.job.history.length > 3) throw ctx.snooze(60);
    return { at: new Date(width), aborted: ctx.signal.aborted };
  },
});
export const inThread = task({
  thread: import.meta.url,
  input: sized,
  run: (_ctx, { width }) => width + 1,
});
export function typedAsOthers() {
  same<PayloadOf<typeof threaded>, { width: number }>(true);
  same<ResultOf<typeof threaded>, { at: string; aborted: boolean }>(true);
  same<PayloadOf<typeof inThread>, { width: string }>(true);
  same<ResultOf<typeof inThread>, number>(true);
}

export function untyped(queue: Queue) {
  // If the type does not name the tasks, any payload is accepted.
  return Promise.all([queue.enqueue("anything"), queue.enqueue("anything", { a: 1 }, { key: "k" })]);
}
