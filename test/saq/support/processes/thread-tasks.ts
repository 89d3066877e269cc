/**
 * Tasks that run in threads. `spin` notes its steps in a file, so that a test sees when its computation stops. It
 * computes for `ms`, or until the file `end` exists.
 */
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { isMainThread, threadId } from "node:worker_threads";
import { z } from "zod";
import { NoRetry, task } from "../../../../templates/backend/saq/index.js";

/** Computes for `ms` without a pause, so that the event loop handles no event. Ends early when `each` returns true. */
function compute(ms: number, each: () => boolean | undefined): number {
  const end = performance.now() + ms;
  let sum = 0;
  while (performance.now() < end) {
    for (let i = 0; i < 2_000_000; i++) sum = (sum * 31 + i) % 1_000_003;
    if (each()) break;
  }
  return sum;
}

export const spin = task({
  thread: import.meta.url,
  timeout: 60,
  run: (ctx, { ms, file, end }: { ms: number; file: string; end?: string }) => {
    const note = () => appendFileSync(file, `${ctx.job.attempts}\n`);
    note();
    compute(ms, () => {
      note();
      return end !== undefined && existsSync(end);
    });
    return { threadId, isMainThread, pid: process.pid };
  },
});

/** Computes until its signal fires. */
export const asks = task({
  thread: import.meta.url,
  timeout: 60,
  run: (ctx) => {
    ctx.log.info("computing");
    compute(60_000, () => ctx.signal.aborted);
    ctx.log.info({ reason: (ctx.signal.reason as Error).name }, "saw its signal");
  },
});

/** Its first attempt is one call of native code that cannot be interrupted: it opens a FIFO, and waits for a writer. */
export const opens = task({
  thread: import.meta.url,
  run: (ctx, { fifo }: { fifo: string }) => {
    if (ctx.job.attempts === 1) readFileSync(fifo);
  },
});

/** Waits asynchronously until its signal fires. */
export const waits = task({
  thread: import.meta.url,
  timeout: 60,
  run: async (ctx) => {
    ctx.log.info("wait%s", "ing");
    await new Promise((_, reject) =>
      ctx.signal.addEventListener("abort", () => {
        ctx.log.info({ reason: (ctx.signal.reason as Error).name }, "saw its signal");
        reject(ctx.signal.reason as Error);
      }),
    );
  },
});

export const reports = task({
  thread: import.meta.url,
  timeout: 60,
  run: async (ctx, { name }: { name: string }) => {
    await ctx.job.update({ progress: 0.5, meta: { name } });
    const { key, attempts, progress, meta } = ctx.job;
    ctx.log.child({ part: 1 }).warn({ name, run: () => {} }, "half way");
    const refused = await ctx.job.update({ progress: 7 }).catch((error: Error) => error.message);
    return { key, attempts, progress, meta, queue: ctx.queue.name, workerId: ctx.workerId, refused };
  },
});

class OddError extends Error {
  override name = "OddError";
}

export const ends = task({
  thread: import.meta.url,
  run: (
    _ctx,
    { how }: { how: "throws" | "exits" | "strays" | "text" | "uncloneable" | "unreadable" | "exhausts" },
  ) => {
    switch (how) {
      case "throws":
        throw Object.assign(new OddError("odd", { cause: new TypeError("why") }), { code: "E_ODD" });
      case "exits":
        return process.exit(3);
      case "strays":
        setImmediate(() => {
          throw new Error("outside of any promise");
        });
        return new Promise(() => {});
      case "text":
        throw "only a text";
      case "uncloneable":
        throw { name: "Odd", message: "its stack is a function", stack: () => "" };
      case "unreadable":
        throw new Proxy(
          {},
          {
            get: () => {
              throw new Error("not to be read");
            },
          },
        );
      case "exhausts": {
        const held: number[][] = [];
        for (;;) held.push(new Array(100_000).fill(held.length));
      }
    }
  },
});

class CardRefused extends NoRetry {}

/** Ends its job in a way that is neither a result nor a plain error. */
export const stops = task({
  thread: import.meta.url,
  retries: 3,
  output: z.object({ history: z.unknown(), attempts: z.number(), snoozes: z.unknown() }).partial(),
  run: async (ctx, { how }: { how: "for good" | "until later" | "by mistake" }): Promise<object> => {
    if (ctx.job.meta.snoozes === 1) {
      await ctx.job.update({ meta: { step: 2 } });
      const { history, attempts, meta } = ctx.job;
      return { history, attempts, snoozes: meta.snoozes };
    }
    if (how === "until later") throw ctx.snooze(0);
    if (how === "by mistake") return ctx.snooze(5);
    throw Object.assign(new CardRefused("expired", { cause: new TypeError("why") }), { code: "E_CARD" });
  },
});

export const answers = task({
  thread: import.meta.url,
  run: (_ctx, { what }: { what: "date" | "nothing" | "bigint" | "function" }): unknown => {
    switch (what) {
      case "date":
        return { at: new Date(0), own: { toJSON: () => "as its toJSON says" } };
      case "nothing":
        return undefined;
      case "bigint":
        return 1n;
      case "function":
        return () => {};
    }
  },
});

/** The worker's main thread passes its result through the schema. */
export const measures = task({
  thread: import.meta.url,
  retries: 3,
  output: z.object({ width: z.coerce.number().positive() }),
  run: (_ctx, { width }: { width: string }) => ({ width, unit: "dropped by the schema" }),
});

export const tasks = {
  spin,
  asks,
  opens,
  waits,
  reports,
  ends,
  stops,
  answers,
  measures,
  hidden: task({ thread: import.meta.url, run: () => "its module does not export it" }),
};
