/**
 * Compile-time checks of hooks and of what they put on ctx (W-8, W-9). types.test.ts compiles this file and never runs
 * it: every `@ts-expect-error` must be an error, and everything else must compile.
 */
import { defineQueue } from "../../../../templates/backend/saq/config/index.js";
import type { Queue } from "../../../../templates/backend/saq/queue/queue.js";
import { monitoredJob } from "../../../../templates/backend/saq/tasks/monitored-job.js";
import {
  beforeProcessLogger,
  startupLogger,
  timingAfterProcess,
  timingBeforeProcess,
} from "../../../../templates/backend/saq/tasks/ready-hooks.js";
import {
  type Context,
  type PayloadOf,
  type ResultOf,
  task,
} from "../../../../templates/backend/saq/tasks/task.js";
import type { StandardSchema } from "../../../../templates/backend/saq/tasks/validation.js";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>): void => {};

interface Pool {
  query(text: string): Promise<number>;
  end(): Promise<void>;
}
declare const pool: Pool;
declare const sized: StandardSchema<{ width: string }, { width: number }>;

const plain = (ctx: Context) => ctx.workerId;
const needsDb = async (ctx: Context<{ db: Pool }>, { id }: { id: number }) => ctx.db.query(`select ${id}`);
const needsMore = task({
  input: sized,
  run: async (ctx: Context<{ db: Pool; requestId: string }>, { width }) =>
    ctx.db.query(ctx.requestId + width),
});
const base = { name: "q", dsn: "postgresql://h/d" };

export const withAll = defineQueue({
  ...base,
  tasks: { plain, needsDb, needsMore },
  startup: [
    async (ctx) => {
      ctx.log.info({ worker: ctx.worker.id }, ctx.queue.name);
      // @ts-expect-error during start-up no job runs yet
      ctx.job;
      return { db: pool };
    },
    () => {},
  ],
  shutdown: async (ctx) => {
    // @ts-expect-error start-up may have failed before it returned db
    await ctx.db.end();
    await ctx.db?.end();
  },
  beforeProcess: async (ctx) => {
    same<typeof ctx.db, Pool>(true);
    return { requestId: String(ctx.job.meta.requestId) };
  },
  aroundProcess: async (ctx, next) => {
    same<typeof ctx.db, Pool>(true);
    same<typeof ctx.requestId, string>(true);
    same<ReturnType<typeof next>, Promise<unknown>>(true);
    await next();
  },
  afterProcess: [
    (ctx) => {
      same<typeof ctx.requestId, string | undefined>(true);
      same<typeof ctx.exception, unknown>(true);
      ctx.db.query(ctx.job.status);
    },
  ],
});
export const withOne = defineQueue({ ...base, tasks: { plain, needsDb }, startup: () => ({ db: pool }) });
export const withNone = defineQueue({ ...base, tasks: { plain } });

// @ts-expect-error needsDb needs db, and no start-up hook returns it
defineQueue({ ...base, tasks: { plain, needsDb } });
// @ts-expect-error db may be missing
defineQueue({ ...base, tasks: { needsDb }, startup: () => (Math.random() > 0.5 ? { db: pool } : undefined) });
// @ts-expect-error db has another type
defineQueue({ ...base, tasks: { needsDb }, startup: () => ({ db: 5 }) });
// @ts-expect-error needsMore needs requestId too
defineQueue({ ...base, tasks: { needsMore }, startup: () => ({ db: pool }) });
// @ts-expect-error beforeProcess needs db, and no start-up hook returns it
defineQueue({ ...base, tasks: { plain }, beforeProcess: (ctx: Context<{ db: Pool }>) => ctx.db.query("") });
// @ts-expect-error aroundProcess needs db, and no start-up hook returns it
defineQueue({ ...base, tasks: { plain }, aroundProcess: (_ctx: Context<{ db: Pool }>, next) => next() });
// @ts-expect-error a string is not a hook
defineQueue({ ...base, tasks: { plain }, startup: "./hooks.js#startup" });

// Without an annotation, ctx has only what every queue provides.
task({
  run: async (ctx) => {
    same<typeof ctx, Context>(true);
    // @ts-expect-error no annotation says that ctx has db
    ctx.db;
  },
});

// A monitored task has the types of the task that it wraps.
const monitored = task({
  input: sized,
  run: monitoredJob(async (ctx, { width }) => {
    same<typeof ctx, Context>(true);
    same<typeof width, number>(true);
    return [width];
  }),
});
same<PayloadOf<typeof monitored>, { width: string }>(true);
same<ResultOf<typeof monitored>, number[]>(true);
const monitoredPlain = monitoredJob({ interval: 3 })((ctx: Context<{ db: Pool }>, { id }: { id: number }) =>
  ctx.db.query(`${id}`),
);
same<PayloadOf<typeof monitoredPlain>, { id: number }>(true);
same<ResultOf<typeof monitoredPlain>, number>(true);
const nothing = monitoredJob(async (ctx: Context) => ctx.workerId);
defineQueue({ ...base, tasks: { monitored, monitoredPlain, nothing }, startup: () => ({ db: pool }) });
// @ts-expect-error the monitored task needs db, as the task that it wraps does
defineQueue({ ...base, tasks: { monitoredPlain } });
export const enqueueing = (queue: Queue<{ nothing: typeof nothing }>) => queue.enqueue("nothing");
// @ts-expect-error the task takes no payload
export const given = (queue: Queue<{ nothing: typeof nothing }>) => queue.enqueue("nothing", { a: 1 });

// Ready-made hooks return what other ready-made hooks need.
defineQueue({
  ...base,
  tasks: { plain },
  startup: [startupLogger],
  beforeProcess: [beforeProcessLogger, timingBeforeProcess],
  afterProcess: [timingAfterProcess, (ctx) => ctx.timingStart?.toFixed()],
});
