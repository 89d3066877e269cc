/**
 * Compile-time checks of waits for jobs and of enqueue hooks. types.test.ts compiles this file and never runs it: every
 * `@ts-expect-error` must be an error, and everything else must compile.
 */
import {
  type Context,
  createSaq,
  defineQueue,
  defineSaq,
  type Job,
  type JobError,
  type JobGoneError,
  Queue,
  task,
} from "../../../../templates/backend/saq/index.js";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>): void => {};

const greet = async (_ctx: Context, { name }: { name: string }) => ({ greeting: name, at: new Date() });
const nothing = async (_ctx: Context) => {};
const plain = task({ run: async (_ctx, { id }: { id: number }) => id });
type Greeting = { greeting: string; at: string };

const config = defineQueue({ name: "default", dsn: "postgresql://h/d", tasks: { greet, nothing, plain } });
const queue = createSaq(defineSaq({ queues: [config] })).taskQueues.get("default");

export async function applying() {
  const greeting = await queue.apply("greet", { name: "a" }, { waitTimeout: 5, key: "k", timeout: 3 });
  same<typeof greeting, Greeting>(true);
  same<Awaited<ReturnType<typeof queue.apply<"plain">>>, number>(true);
  await queue.apply("nothing");
  // @ts-expect-error a typo in the payload
  await queue.apply("greet", { nmae: "a" });
  // @ts-expect-error the payload is missing
  await queue.apply("greet");
  // @ts-expect-error unknown task
  await queue.apply("great", { name: "a" });
  // @ts-expect-error no worker can run the job before the transaction ends
  await queue.apply("greet", { name: "a" }, { client: { query: async () => ({ rows: [] }) } });
  // @ts-expect-error enqueue does not wait, so it takes no waitTimeout
  await queue.enqueue("greet", { name: "a" }, { waitTimeout: 5 });
}

export async function mapping() {
  const greetings = await queue.map("greet", [{ name: "a" }], { each: ({ name }) => ({ key: name }) });
  same<typeof greetings, Greeting[]>(true);
  const mixed = await queue.map("plain", [{ id: 1 }], { returnExceptions: true });
  same<typeof mixed, (number | JobError | JobGoneError)[]>(true);
  await queue.map("nothing", [undefined, undefined]);
  // @ts-expect-error the payload of another task
  await queue.map("plain", [{ name: "a" }]);
  // @ts-expect-error `each` receives the task's payload, which has no name
  await queue.map("plain", [{ id: 1 }], { each: ({ name }) => ({ key: name }) });
  const answered = await queue.batch(async () => ({ n: 1 }));
  same<typeof answered, { n: number }>(true);
}

export async function jobs() {
  const job = queue.prepare("greet", { name: "a" });
  same<typeof job, Job<Greeting>>(true);
  // @ts-expect-error nothing is stored yet, so the client belongs to job.enqueue
  queue.prepare("greet", { name: "a" }, { client: { query: async () => ({ rows: [] }) } });
  const stored = await queue.enqueue(job, { priority: 3, payload: { name: "b" } });
  same<typeof stored, Job<Greeting> | null>(true);
  // @ts-expect-error a prepared job has its key already
  await queue.enqueue(job, { key: "other" });
  // @ts-expect-error callers cannot set the status
  await job.update({ status: "complete" });
  await job.update({ progress: 0.5, meta: {}, timeout: null });
  // @ts-expect-error a job ends as complete, failed or aborted
  await queue.finish(job.key, "queued");
  // @ts-expect-error no such duration
  job.duration("idle");
  const answer = await queue.finish(job.key, "complete", { result: 1 });
  same<typeof answer, "finished" | "aborting" | "not_active" | null>(true);
  for await (const each of queue.iterJobs({ statuses: ["failed"] })) same<typeof each, Job>(true);
}

export function hooks() {
  const unregister = queue.registerBeforeEnqueue(async (job) => {
    job.meta.trace = 1;
    job.priority = 3;
    // @ts-expect-error hooks cannot change the key, the job's identity
    job.key = "other";
    // @ts-expect-error hooks cannot set the status
    job.status = "complete";
    // @ts-expect-error hooks cannot set attempts, which only the engine knows
    job.attempts = 1;
  });
  same<typeof unregister, () => void>(true);
}

export const insideATask = task({
  run: async (ctx) => {
    const greeting = await ctx.apply(greet, { name: "a" }, { waitTimeout: 5 });
    same<typeof greeting, Greeting>(true);
    same<Awaited<ReturnType<typeof ctx.apply<typeof plain>>>, number>(true);
    // @ts-expect-error a typo in the payload
    await ctx.apply(greet, { nmae: "a" });
    // @ts-expect-error ctx.apply takes the task itself, not its name
    await ctx.apply("greet", { name: "a" });
  },
});

export async function byAddress() {
  // These tasks are defined elsewhere: any payload is accepted, and the result is unknown.
  const far: Queue = Queue.fromUrl("postgresql://h/d", { name: "mail" });
  const result = await far.apply("anything", { a: 1 });
  same<typeof result, unknown>(true);
  await far.map("anything", [{ a: 1 }, { b: 2 }]);
  // @ts-expect-error only defineQueue takes tasks
  Queue.fromUrl("postgresql://h/d", { tasks: { greet } });
}
