/** What workers do while a queue, a task or a group is paused, and after that. */
import { describe, expect, it, jest } from "@jest/globals";
import { cronJob } from "../../../templates/backend/saq/config/index.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import { LogBook } from "../support/log-book.js";
import {
  insertRow,
  openQueue,
  rowOf,
  startWorker,
  type TestWorker,
  until,
  useDatabase,
} from "../support/scenario.js";
import { can, itNeeds } from "../support/test-broker.js";

const database = useDatabase();

jest.setTimeout(120_000);

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** A promise that resolves when the test calls `open`. */
function gate() {
  let open: () => void = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

/** A queue of a worker, and the same queue as another process has it. The tasks note the jobs that they start. */
function stage(options: object = {}) {
  const started: string[] = [];
  const { open, opened } = gate();
  const tasks = {
    note: (ctx: Context, _payload?: { n: number }) => void started.push(ctx.job.key),
    mail: (ctx: Context, _payload?: { n: number }) => void started.push(ctx.job.key),
    wait: async (ctx: Context) => {
      started.push(ctx.job.key);
      await opened;
    },
  };
  const queue = openQueue(database, tasks, options);
  const peer = openQueue(database, tasks, { name: queue.name });
  return { queue, peer, started, open };
}

const saw = ({ log }: TestWorker, message: string) => log.saw((line) => line.message === message);
const count = ({ log }: TestWorker, message: string) =>
  log.lines.filter((line) => line.message === message).length;
const jobs = <Task extends string>(task: Task, size: number) =>
  Array.from({ length: size }, (_, n) => ({ task, payload: { n } }));
const keysOf = (enqueued: readonly ({ key: string } | null)[]) => enqueued.map((job) => String(job?.key));

/** How many claims the worker has sent. */
function countClaims(queue: Pick<Queue, "broker">): () => number {
  const claim = jest.spyOn(queue.broker, "claim");
  return () => claim.mock.calls.length;
}

describe("a paused queue", () => {
  it("starts nothing and claims nothing; a running job goes on; after resume jobs start in their order", async () => {
    const { queue, peer, started, open } = stage({ concurrency: 1 });
    const worker = await startWorker(queue);
    const running = await peer.enqueue("wait");
    await until(async () => started.length === 1);
    await peer.pause({ by: "ann", reason: "move" });
    const line = await saw(worker, `Paused: queue ${queue.name}`);
    expect(line).toMatchObject({ level: "info", fields: { by: "ann", reason: "move", until: null } });
    const claims = countClaims(queue);
    const waiting = keysOf(await peer.enqueueMany(jobs("note", 20)));
    open();
    expect(await worker.ended(running.key)).toBe("Finished wait");
    // With notifications and with polling, an idle worker would have started them long before.
    await pause(400);
    expect([started, claims()]).toEqual([[running.key], 0]);
    expect(await peer.counts()).toMatchObject({ queued: 20, active: 0 });
    const resumedAt = performance.now();
    expect(await peer.resume()).toBe(true);
    await until(async () => started.length === 21);
    expect(performance.now() - resumedAt).toBeLessThan(30_000);
    expect(started.slice(1)).toEqual(waiting);
    expect(count(worker, `Resumed: queue ${queue.name}`)).toBe(1);
    expect(count(worker, `Paused: queue ${queue.name}`)).toBe(1);
  });

  it("gives back what was claimed ahead, uncounted and in its order", async () => {
    // No tick gives back jobs that have waited for too long.
    const timers = { schedule: 600 };
    const { queue, peer, started, open } = stage({ concurrency: 1, timers });
    const worker = await startWorker(queue);
    const before = keysOf(await peer.enqueueMany(jobs("note", 300)));
    const running = await peer.enqueue("wait");
    const after = keysOf(await peer.enqueueMany(jobs("note", 300)));
    await until(async () => started.includes(running.key));
    await until(async () => (await peer.counts()).active > 100);
    await peer.pause();
    await until(async () => (await peer.counts()).active === 1);
    expect(started).toEqual([...before, running.key]);
    for (const key of after) {
      const document = JSON.parse(String((await rowOf(database, key))?.text)) as object;
      for (const member of ["attempts", "started", "worker_id"]) expect(document).not.toHaveProperty(member);
    }
    await peer.resume();
    open();
    await until(async () => started.length === 601);
    expect(started).toEqual([...before, running.key, ...after]);
    await worker.ended(String(after.at(-1)));
    expect((await peer.job(String(after[0])))?.attempts).toBe(1);
  });

  it("does not start a job whose claim was in flight when the worker noticed the pause", async () => {
    const { queue, peer, started } = stage();
    const worker = await startWorker(queue);
    const { open, opened } = gate();
    const claim = queue.broker.claim.bind(queue.broker);
    let held = 0;
    jest.spyOn(queue.broker, "claim").mockImplementation(async (request) => {
      const result = await claim(request);
      if (result.jobs.length > 0 && held++ === 0) await opened;
      return result;
    });
    const job = await peer.enqueue("note");
    await until(async () => held > 0);
    await peer.pause();
    await saw(worker, `Paused: queue ${queue.name}`);
    open();
    await until(async () => (await peer.counts()).active === 0);
    expect(started).toEqual([]);
    expect((await peer.job(job.key))?.attempts).toBe(0);
    await peer.resume();
    await worker.ended(job.key);
    expect((await peer.job(job.key))?.attempts).toBe(1);
  });

  it("stays paused in a worker that starts later", async () => {
    const { queue, peer, started } = stage();
    const job = await peer.enqueue("note");
    await peer.pause();
    const worker = await startWorker(queue);
    expect(count(worker, `Paused: queue ${queue.name}`)).toBe(1);
    await pause(300);
    expect(started).toEqual([]);
    await peer.resume();
    await worker.ended(job.key);
  });

  it("goes on by itself when its time is over, and not before", async () => {
    const { queue, peer } = stage();
    const worker = await startWorker(queue);
    const { until: end } = await peer.pause({ seconds: 1.5 });
    const line = await saw(worker, `Paused: queue ${queue.name}`);
    expect(line.fields.until).toBe(new Date(Number(end)).toISOString());
    const job = await peer.enqueue("note");
    await worker.ended(job.key);
    // The clock of this process is an estimate of the server's.
    expect((await peer.job(job.key))?.started).toBeGreaterThan(Number(end) - 500);
    expect(count(worker, `Resumed: queue ${queue.name}`)).toBe(1);
  });

  it("lets a caller that waits for a result wait", async () => {
    const { queue, peer } = stage();
    const worker = await startWorker(queue);
    await peer.pause();
    await saw(worker, `Paused: queue ${queue.name}`);
    let isOver = false;
    const applied = peer.apply("note").finally(() => {
      isOver = true;
    });
    await pause(300);
    expect(isOver).toBe(false);
    await peer.resume();
    expect(await applied).toBeNull();
  });

  it("ends a burst, which says so", async () => {
    const { queue, peer } = stage({ burst: true, dequeueTimeout: 60 });
    await peer.enqueue("note");
    await peer.pause();
    const { worker, log } = await startWorker(queue);
    await worker.finished;
    const lines = log.lines.map(({ message }) => message);
    expect(lines).toContain("The queue is paused, so the burst ends: it has nothing to do");
    expect(lines.at(-1)).toBe("Worker stopped");
    expect(await peer.counts()).toMatchObject({ queued: 1, active: 0 });
  });

  it("lets its ticks wait, and stores the next one only after that", async () => {
    const started: string[] = [];
    const tick = (ctx: Context) => void started.push(ctx.job.key);
    const scheduledTasks = [cronJob("tick", { cron: "* * * * * *" })];
    const queue = openQueue(database, { tick }, { scheduledTasks });
    const worker = await startWorker(queue);
    await until(async () => started.length > 0);
    await queue.pause();
    await saw(worker, `Paused: queue ${queue.name}`);
    await until(async () => {
      const { queued } = await queue.counts();
      return queued === 1;
    });
    const before = started.length;
    const [waiting] = await queue.list({ statuses: ["queued"] });
    await pause(2_100);
    expect(started.length).toBe(before);
    expect((await queue.list({ statuses: ["queued"] })).map(({ scheduled }) => scheduled)).toEqual([
      waiting?.scheduled,
    ]);
    await queue.resume();
    await until(async () => started.length > before + 1);
  });
});

describe("a paused task", () => {
  it("starts none of its jobs, and the others go on; after resume its jobs start in their order", async () => {
    const { queue, peer, started } = stage({ concurrency: 3 });
    await peer.pause({ task: "mail" });
    const mails: string[] = [];
    const notes: string[] = [];
    for (let round = 0; round < 10; round++) {
      mails.push(...keysOf(await peer.enqueueMany(jobs("mail", 30))));
      notes.push(...keysOf(await peer.enqueueMany(jobs("note", 3))));
    }
    const worker = await startWorker(queue);
    await until(async () => started.length === 30);
    expect(started).toEqual(notes);
    await until(async () => (await peer.counts()).active === 0);
    expect(await peer.counts()).toMatchObject({ queued: 300, complete: 30 });
    expect((await peer.list({ statuses: ["queued"], limit: 1_000 })).length).toBe(300);
    await peer.resume({ task: "mail" });
    await until(async () => started.length === 330);
    expect(started.slice(30)).toEqual(mails);
    for (const what of ["Paused", "Resumed"])
      expect(count(worker, `${what}: task mail of queue ${queue.name}`)).toBe(1);
    expect((await peer.job(String(mails[0])))?.attempts).toBe(1);
  });

  it("gives back what was claimed ahead of it, and not the others", async () => {
    const { queue, peer, started, open } = stage({ concurrency: 1, timers: { schedule: 600 } });
    await startWorker(queue);
    await peer.enqueueMany(jobs("note", 300));
    const running = await peer.enqueue("wait");
    const mixed = Array.from({ length: 100 }, (_, n) => [
      { task: "mail" as const, payload: { n } },
      { task: "note" as const, payload: { n } },
    ]).flat();
    const keys = keysOf(await peer.enqueueMany(mixed));
    const [mails, notes] = [0, 1].map((rest) => keys.filter((_, index) => index % 2 === rest));
    await until(async () => started.includes(running.key));
    await until(async () => (await peer.counts()).active > 100);
    await peer.pause({ task: "mail" });
    await until(async () => (await peer.counts()).active <= 101);
    started.splice(0);
    open();
    await until(async () => started.length >= 100);
    expect(started).toEqual(notes);
    await peer.resume({ task: "mail" });
    await until(async () => started.length >= 200);
    expect(started.slice(100)).toEqual(mails);
  });

  it("is not claimed again and again", async () => {
    const { queue, peer, started } = stage();
    await peer.enqueueMany(jobs("mail", 50));
    await peer.pause({ task: "mail" });
    const claims = countClaims(queue);
    const settle = jest.spyOn(queue.broker, "settle");
    const worker = await startWorker(queue);
    const note = await peer.enqueue("note");
    await worker.ended(note.key);
    const [claimsBefore, settledBefore] = [claims(), settle.mock.calls.length];
    await pause(500);
    // With polling, a worker claims every 0.1 s in any case.
    expect(claims() - claimsBefore).toBeLessThan(20);
    expect([started, settle.mock.calls.length]).toEqual([[note.key], settledBefore]);
  });

  it("may be one of several, and may have a name of any characters", async () => {
    const names = ["größe", "back\\slash", 'quo"te', "a b", "漢字"] as const;
    const started: string[] = [];
    const note = (ctx: Context) => void started.push(ctx.job.function);
    const tasks = Object.fromEntries([...names, "free"].map((name) => [name, note]));
    const queue = openQueue(database, tasks);
    for (const name of names) {
      await queue.enqueue(name);
      await queue.pause({ task: name });
    }
    await startWorker(queue);
    await queue.apply("free");
    await pause(200);
    expect(started).toEqual(["free"]);
    await queue.resume({ task: "größe" });
    await until(async () => started.length === 2);
    expect(started).toEqual(["free", "größe"]);
    for (const name of names.slice(1)) await queue.resume({ task: name });
    await until(async () => started.length === 6);
    expect(started.slice(2).toSorted()).toEqual(names.slice(1).toSorted());
  });

  it("covers jobs whose documents another program has written, in any order and form", async () => {
    const { queue, peer, started } = stage();
    await peer.pause({ task: "mail" });
    const documents = {
      python: '{"function": "mail", "queue": QUEUE, "key": "python", "status": "queued"}',
      jsonb:
        '{"key": "jsonb", "queue": QUEUE, "kwargs": {"function": "note"}, "status": "queued", "function": "mail"}',
      mixed: '{"status":"queued","queue":QUEUE,"function":"mail","key":"mixed"}',
      escaped: '{"function":"\\u006dail","queue":QUEUE,"key":"escaped","status":"queued"}',
      other:
        '{"queue": QUEUE, "key": "other", "kwargs": {"function": "mail"}, "function": "note", "status": "queued"}',
    };
    for (const [key, text] of Object.entries(documents)) {
      const document = text.replace("QUEUE", JSON.stringify(queue.name));
      await insertRow(database, { key, queue: queue.name, document });
    }
    const worker = await startWorker(queue);
    await worker.ended("other");
    await pause(300);
    expect(started).toEqual(["other"]);
    await peer.resume({ task: "mail" });
    await until(async () => started.length === 5);
  });

  it("lets a retry wait too", async () => {
    const runs: number[] = [];
    const { open, opened } = gate();
    const flaky = async (ctx: Context) => {
      runs.push(ctx.job.attempts);
      if (ctx.job.attempts > 1) return;
      await opened;
      throw new Error("again");
    };
    const queue = openQueue(database, { flaky, other: () => {} }, { defaults: { retries: 2 } });
    const worker = await startWorker(queue);
    const job = await queue.enqueue("flaky");
    await until(async () => runs.length === 1);
    await queue.pause({ task: "flaky" });
    await saw(worker, `Paused: task flaky of queue ${queue.name}`);
    open();
    expect(await worker.ended(job.key)).toBe("Retrying flaky");
    await queue.apply("other");
    await pause(200);
    expect(runs).toEqual([1]);
    await queue.resume({ task: "flaky" });
    expect(await worker.ended(job.key, 2)).toBe("Finished flaky");
  });

  it("does not bring back an aborted job, and its key is free", async () => {
    const { queue, peer, started } = stage();
    await peer.pause({ task: "mail" });
    const worker = await startWorker(queue);
    for (const key of ["a", "b", "c"]) await peer.enqueue("mail", { n: 1 }, { key });
    // On Redis, the worker has put the jobs aside when it has run this one.
    await worker.ended((await peer.enqueue("note")).key);
    expect(await peer.abort("b")).toBe("aborted");
    expect(await peer.counts()).toMatchObject({ queued: 2, aborted: 1 });
    expect(await peer.enqueue("note", { n: 2 }, { key: "b" })).not.toBeNull();
    await worker.ended("b");
    expect(await peer.enqueue("mail", { n: 3 }, { key: "a" })).toBeNull();
    await peer.resume({ task: "mail" });
    await worker.ended("c");
    await worker.ended("a");
    expect(started.filter((key) => key.length === 1)).toEqual(["b", "a", "c"]);
  });

  it("leaves a burst to end without its jobs", async () => {
    const { queue, peer, started } = stage({ burst: true, dequeueTimeout: 0.3 });
    await peer.pause({ task: "mail" });
    await peer.enqueueMany(jobs("mail", 5));
    const note = await peer.enqueue("note");
    const { worker } = await startWorker(queue);
    await worker.finished;
    expect(started).toEqual([note.key]);
    expect(await peer.counts()).toMatchObject({ queued: 5, active: 0 });
  });
});

describe("a paused group", () => {
  itNeeds("groups", "starts none of its jobs, and the others go on", async () => {
    const { queue, peer, started } = stage({ concurrency: 3 });
    await peer.pause({ group: "g" });
    const inGroup: string[] = [];
    const others: string[] = [];
    for (let n = 0; n < 10; n++) {
      inGroup.push((await peer.enqueue("note", { n }, { groupKey: "g" })).key);
      others.push((await peer.enqueue("note", { n }, { groupKey: "h" })).key);
      others.push((await peer.enqueue("note", { n })).key);
    }
    const worker = await startWorker(queue);
    await until(async () => started.length === 20);
    expect(started.toSorted()).toEqual(others.toSorted());
    await pause(200);
    expect(started).toHaveLength(20);
    await peer.resume({ group: "g" });
    await until(async () => started.length === 30);
    expect(started.slice(20)).toEqual(inGroup);
    expect(count(worker, `Paused: group g of queue ${queue.name}`)).toBe(1);
  });

  itNeeds(
    "groups",
    "and a paused task: its jobs are left in every group, and the others of the group go on",
    async () => {
      const { queue, peer, started } = stage({ concurrency: 3 });
      await peer.pause({ task: "mail" });
      const notes: string[] = [];
      const mails: string[] = [];
      for (let n = 0; n < 5; n++) {
        for (const groupKey of ["a", "b"]) {
          mails.push((await peer.enqueue("mail", { n }, { groupKey })).key);
          notes.push((await peer.enqueue("note", { n }, { groupKey })).key);
        }
      }
      await startWorker(queue);
      await until(async () => started.length === 10);
      expect(started.toSorted()).toEqual(notes.toSorted());
      await peer.resume({ task: "mail" });
      await until(async () => started.length === 20);
      expect(started.slice(10).toSorted()).toEqual(mails.toSorted());
    },
  );
});

it("pauses of a queue and of its task are independent of each other", async () => {
  const { queue, peer, started } = stage();
  const log = new LogBook();
  await peer.pause({ task: "mail" });
  await peer.pause();
  const worker = await startWorker(queue, { logger: log });
  await peer.enqueue("mail");
  const note = await peer.enqueue("note");
  await peer.resume();
  await until(async () => started.length === 1);
  await pause(can("push") ? 100 : 300);
  expect(started).toEqual([note.key]);
  await peer.resume({ task: "mail" });
  await until(async () => started.length === 2);
  expect(worker.worker.health.isFailing).toBe(false);
});
