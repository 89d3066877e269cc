/** Tasks that send heartbeats while they run (S-30 to S-33, D-51). */
import { describe, expect, it } from "@jest/globals";
import { monitoredJob, task } from "../../../templates/backend/saq/index.js";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import type { LogBook } from "../support/log-book.js";
import { openQueue, rowOf, startWorker, until, useDatabase } from "../support/scenario.js";

const database = useDatabase();

const silence = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const events = (log: LogBook, key: string) =>
  log.lines.filter(({ fields }) => fields.job === key).map(({ fields }) => fields.event);
const beats = (log: LogBook, key: string) =>
  events(log, key).filter((event) => event === "heartbeat_sent").length;

describe("monitoredJob", () => {
  it("D-51, T-157, T-162: keeps three silent jobs with heartbeat 1 alive; an unmonitored job times out", async () => {
    const quiet = (_ctx: Context, { ms }: { ms: number }) => silence(ms).then(() => "done");
    const queue = openQueue(
      database,
      {
        monitored: task({ heartbeat: 1, run: monitoredJob(quiet) }),
        plain: task({ heartbeat: 1, run: quiet }),
      },
      { timers: { abort: 0.1 } },
    );
    const { ended, log } = await startWorker(queue);
    const jobs = await queue.enqueueMany(
      Array.from({ length: 3 }, () => ({ task: "monitored" as const, payload: { ms: 1_700 } })),
    );
    const plain = await queue.enqueue("plain", { ms: 1_900 });
    for (const job of jobs) {
      expect(await ended(String(job?.key))).toBe("Finished monitored");
      expect(beats(log, String(job?.key))).toBeGreaterThanOrEqual(2);
      expect(events(log, String(job?.key)).at(-1)).toBeUndefined();
    }
    expect(await ended(plain.key)).toBe("Failed plain");
    expect((await plain.refresh()).error).toContain("no heartbeat for 1 s");
  });

  it("D-21, S-33: a heartbeat changes `touched` and nothing else", async () => {
    const queue = openQueue(database, {
      given: task({
        run: monitoredJob(
          async (ctx: Context) => {
            await ctx.job.update({ progress: 0.5, meta: { step: 1 } });
            await until(async () => parked);
          },
          { interval: 0.02 },
        ),
      }),
    });
    let parked = false;
    const document = async () => JSON.parse((await rowOf(database, job.key))?.text ?? "{}");
    const { log, ended } = await startWorker(queue);
    const job = await queue.enqueue("given");
    await log.saw(({ fields }) => fields.job === job.key && fields.event === "heartbeat_sent");
    await until(async () => (await document()).progress === 0.5);
    const { touched, ...before } = await document();
    await until(async () => (await document()).touched > touched);
    const { touched: _, ...after } = await document();
    expect(after).toEqual(before);
    parked = true;
    await ended(job.key);
  });

  it("T-158, T-161, T-163: stops with the task, and passes on the task's result and error", async () => {
    const failure = new Error("as it was");
    const queue = openQueue(
      database,
      {
        good: monitoredJob({ interval: 0.01 })(async (_ctx: Context, { n }: { n: number }) => {
          await silence(60);
          return { n };
        }),
        bad: monitoredJob(
          async () => {
            await silence(60);
            throw failure;
          },
          { interval: 0.01 },
        ),
        aborted: monitoredJob(
          ({ signal }: Context) => new Promise((resolve) => signal.addEventListener("abort", resolve)),
          {
            interval: 0.01,
          },
        ),
      },
      { cancellationHardDeadline: 10, afterProcess: (ctx: Context) => void seen.push(ctx.exception) },
    );
    const seen: unknown[] = [];
    const { ended, log, worker } = await startWorker(queue);
    const good = await queue.enqueue("good", { n: 1 });
    await ended(good.key);
    expect((await good.refresh()).result).toEqual({ n: 1 });
    const bad = await queue.enqueue("bad");
    await ended(bad.key);
    const aborted = await queue.enqueue("aborted");
    await log.saw(({ fields }) => fields.job === aborted.key && fields.event === "heartbeat_sent");
    await queue.abort(aborted.key);
    await ended(aborted.key);
    await worker.stop();
    expect(seen).toEqual([undefined, failure, expect.objectContaining({ name: "AbortError" })]);
    for (const { key } of [good, bad, aborted]) {
      await log.saw(({ fields }) => fields.job === key && fields.event === "heartbeat_stopped");
    }
    const counts = () => [good, bad, aborted].map(({ key }) => events(log, key).length);
    const before = counts();
    for (const { key } of [good, bad, aborted]) {
      expect(events(log, key)).toContain("heartbeat_started");
      expect(events(log, key)).toContain("heartbeat_stopped");
      expect(beats(log, key)).toBeGreaterThanOrEqual(1);
    }
    await silence(50);
    expect(counts()).toEqual(before);
  });

  it("T-166, D-51: the interval is a third of the heartbeat, at most 5 s, unless the caller sets it", async () => {
    const quick = () => "quick";
    const queue = openQueue(database, {
      usual: monitoredJob(quick),
      own: monitoredJob(quick, { interval: 10 }),
    });
    const { log } = await startWorker(queue);
    const intervalOf = async (name: "usual" | "own", heartbeat: number) => {
      const { key } = await queue.enqueue(name, undefined, { heartbeat });
      const { fields, message } = await log.saw(
        (line) => line.fields.job === key && line.fields.event === "heartbeat_started",
      );
      expect(message).toBe(
        `Heartbeat monitoring started for job ${key} (interval: ${Number(fields.interval).toFixed(1)}s)`,
      );
      return fields.interval;
    };
    expect(await intervalOf("usual", 60)).toBe(5);
    expect(await intervalOf("usual", 9)).toBe(3);
    expect(await intervalOf("usual", 1)).toBeCloseTo(0.333, 3);
    expect(await intervalOf("usual", 0)).toBe(5);
    expect(await intervalOf("own", 60)).toBe(10);
    expect(log.lines.filter(({ level }) => level === "warn")).toEqual([]);
    await intervalOf("own", 10);
    const { message } = await log.saw(({ level }) => level === "warn");
    expect(message).toMatch(
      /^Heartbeat interval of job .* is 10 s, but its heartbeat is 10 s: the job counts as stuck/,
    );
  });

  it("T-160: a heartbeat that cannot be stored does not fail the job, and is sent again", async () => {
    const queue = openQueue(database, {
      given: monitoredJob(async (_ctx: Context) => until(async () => enough), { interval: 0.02 }),
    });
    let enough = false;
    const touch = queue.broker.heartbeat.bind(queue.broker);
    let calls = 0;
    queue.broker.heartbeat = async (...given) => {
      calls++;
      if (calls <= 2) throw new Error("the network is away");
      return touch(...given);
    };
    const { log, ended } = await startWorker(queue);
    const job = await queue.enqueue("given");
    await until(async () => calls > 2);
    const { message } = await log.saw(({ message }) => message.startsWith("over after"));
    expect(message).toMatch(/could not store the progress of jobs yet$/);
    enough = true;
    expect(await ended(job.key)).toBe("Finished given");
    expect(log.lines.filter(({ level }) => level === "warn")).toHaveLength(1);
  });

  it("T-156: refuses an interval that is not positive when the task is defined", () => {
    const run = () => {};
    expect(() => monitoredJob(run, { interval: 0 })).toThrow("Heartbeat interval must be positive, got 0");
    expect(() => monitoredJob({ interval: -1 })).toThrow("Heartbeat interval must be positive, got -1");
    expect(() => monitoredJob(run, { interval: Number.NaN })).toThrow("must be positive, got NaN");
    expect(() => monitoredJob(run, { interval: 0.001 })).not.toThrow();
  });

  it("T-155, T-159, T-165: keeps the function's name, and runs the function unmonitored without a job", async () => {
    async function resize(_ctx: unknown, payload: { width: number }) {
      return payload.width;
    }
    const lines: string[] = [];
    const monitored = monitoredJob(resize);
    expect(monitored.name).toBe("resize");
    expect(
      await monitored({ log: { debug: (_: object, message: string) => lines.push(message) } }, { width: 3 }),
    ).toBe(3);
    expect(lines).toEqual(["No job in context, heartbeat monitoring disabled"]);
  });
});
