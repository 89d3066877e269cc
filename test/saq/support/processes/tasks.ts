/** Tasks of the worker process. Most of them insert a row when a run begins, and update the row when the run ends. */
import { existsSync } from "node:fs";
import { setTimeout as waitFor } from "node:timers/promises";
import pg from "pg";
import { type Context, inSeconds, task } from "../../../../templates/backend/saq/index.js";
import * as threadTasks from "./thread-tasks.js";

let pool: pg.Pool | null = null;

/**
 * Records runs in this database, over connections apart from those of the engine: a test can cut the engine's
 * connections, and every run is still recorded.
 */
export function recordRunsAt(url: string): void {
  pool = new pg.Pool({
    connectionString: url,
    max: 4,
    application_name: "observer",
    idleTimeoutMillis: 1_000,
    allowExitOnIdle: true,
  });
  pool.on("error", () => {});
}

/** Some tests kill the server: the statement is tried again until the server is back. */
async function write(text: string, values: unknown[]): Promise<{ id: number }[]> {
  for (let tries = 0; ; tries++) {
    try {
      return (await (pool as pg.Pool).query<{ id: number }>(text, values)).rows;
    } catch (error) {
      if (tries > 300) throw error;
      await sleep(100);
    }
  }
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/**
 * Records that a run began. The returned function records its end. Times are from the clock of this process: if it is
 * paused before it writes a row, the row still has the time before the pause.
 */
async function begin(ctx: Context): Promise<(signal?: string) => Promise<void>> {
  const [row] = await write(
    "insert into runs (job, pid, claimed, started) values ($1, $2, $3, $4) returning id",
    [ctx.job.key, process.pid, ctx.job.started, new Date()],
  );
  return async (signal) => {
    await write("update runs set ended = $3, signal = $2 where id = $1", [
      row?.id,
      signal ?? null,
      new Date(),
    ]);
  };
}

interface Nap {
  ms: number;
  /** Replaces `ms` in the first attempt. */
  firstMs?: number;
  /** A file: the nap ends when it exists. */
  end?: string;
}

/** Waits for `ms`, and ends early when its signal fires. */
async function nap(ctx: Context, { ms: usual, firstMs = usual, end: file }: Nap) {
  const ms = ctx.job.attempts === 1 ? firstMs : usual;
  const end = await begin(ctx);
  const fired = () => (ctx.signal.aborted ? (ctx.signal.reason as Error).name : undefined);
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, ms);
    const poll = file === undefined ? undefined : setInterval(() => existsSync(file) && stop(), 20);
    const stop = () => {
      clearTimeout(timer);
      clearInterval(poll);
      resolve();
    };
    ctx.signal.addEventListener("abort", stop);
  });
  await end(fired());
  ctx.signal.throwIfAborted();
  return { pid: process.pid };
}

/** Waits for `ms` like `nap`, and logs when it begins and ends instead of recording it: it needs no database. */
async function logged(ctx: Context, { ms }: { ms: number }) {
  ctx.log.info({ at: Date.now() }, "logged: begin");
  try {
    await waitFor(ms, undefined, { signal: ctx.signal });
    return { pid: process.pid };
  } finally {
    ctx.log.info({ at: Date.now() }, "logged: end");
  }
}

/** Naps, and then throws in the first `fails` attempts. */
async function churn(ctx: Context, { ms, fails = 0 }: { ms: number; fails?: number }) {
  const outcome = await nap(ctx, { ms });
  if (ctx.job.attempts <= fails) throw new Error(`attempt ${ctx.job.attempts} is to fail`);
  return outcome;
}

const noop = () => ({ pid: process.pid });

/** Ignores its signal. Its timer keeps the process alive. */
async function stubborn(ctx: Context, { ms }: { ms: number }) {
  const end = await begin(ctx);
  await sleep(ms);
  await end(ctx.signal.aborted ? (ctx.signal.reason as Error).name : undefined);
  return { pid: process.pid };
}

/** Blocks the event loop: no timer fires, and no response of the database is read. */
async function block(ctx: Context, { ms }: { ms: number }) {
  const end = await begin(ctx);
  ctx.log.info("blocks the event loop from now on");
  const until = performance.now() + ms;
  while (performance.now() < until);
  await end();
  return { pid: process.pid };
}

async function record(ctx: Context) {
  await (await begin(ctx))();
  return { pid: process.pid };
}

/** Creates a rejected promise that no code handles. */
async function strayRejection(ctx: Context) {
  void Promise.reject(new Error("stray rejection"));
  await sleep(50);
  return record(ctx);
}

/** Throws outside of any promise. */
async function strayThrow(ctx: Context) {
  const end = await begin(ctx);
  setTimeout(() => {
    throw new Error("stray throw");
  }, 20);
  await sleep(60_000);
  await end();
}

/** Kills its process, as the operating system does when memory runs out. */
async function die(ctx: Context) {
  await begin(ctx);
  process.kill(process.pid, "SIGKILL");
  await sleep(60_000);
}

/** Sleeps between its steps. Its effect and the end of its job are one transaction. With `hang`, it never returns. */
async function once(ctx: Context, { naps, hang }: { naps: number[]; hang?: boolean }) {
  const [before = 0, inside = 0, finished = 0, committed = 0] = naps;
  await sleep(before);
  const client = await (pool as pg.Pool).connect();
  try {
    await client.query("begin");
    await client.query("insert into effects (job, pid) values ($1, $2)", [ctx.job.key, process.pid]);
    await sleep(inside);
    await ctx.finish({ pid: process.pid }, { client });
    await sleep(finished);
    await client.query("commit");
  } finally {
    client.release(true);
  }
  await sleep(committed);
  if (hang) await (await begin(ctx))("never").then(() => new Promise(() => {}));
}

/** Enqueues a job that is due in `seconds`, by the clock of this process. */
async function later(ctx: Context, { key, seconds }: { key: string; seconds: number }) {
  await ctx.enqueue(record, undefined, { key, scheduled: inSeconds(seconds) });
}

export const tasks = {
  later,
  once,
  nap,
  logged,
  churn,
  noop,
  stubborn,
  block,
  record,
  strayRejection,
  strayThrow,
  die,
  patient: task({ timeout: 0, run: nap }),
};

/**
 * In a worker that has thread tasks, any claimed job may have to wait for a thread, so that a claim never counts as the
 * start of a job. Therefore most tests use `tasks`, without these.
 */
export const tasksWithThreads = { ...tasks, spin: threadTasks.spin, ends: threadTasks.ends };
