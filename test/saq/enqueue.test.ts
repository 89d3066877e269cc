import { beforeAll, describe, expect, it } from "@jest/globals";
import pg from "pg";
import { InvalidJobError, InvalidPayloadError } from "../../templates/backend/saq/errors.js";
import { inSeconds } from "../../templates/backend/saq/job.js";
import type { Queue } from "../../templates/backend/saq/queue.js";
import { type StandardSchema, task } from "../../templates/backend/saq/task.js";
import { pythonComplaints } from "./golden-documents.js";
import { claim, openProxy, openQueue, rowOf, settlement, until, useDatabase } from "./support.js";

const database = useDatabase();

const even: StandardSchema<{ n: string }, { n: number }> = {
  "~standard": {
    version: 1,
    vendor: "test",
    validate: (value) => {
      const n = Number((value as { n?: unknown }).n);
      return n % 2 === 0 ? { value: { n } } : { issues: [{ message: "must be even", path: ["n"] }] };
    },
  },
};

const tasks = {
  hello: (_ctx: unknown, _payload?: object) => "hi",
  patient: task({ timeout: 120, retries: 5, retryDelay: 2, retryBackoff: true, run: () => "done" }),
  checked: task({ input: even, run: (_ctx, { n }) => n }),
};
const open = (options: Parameters<typeof openQueue>[2] = {}) => openQueue(database, tasks, options as object);

// One start makes the tables, so that no test measures that.
beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

const nowSeconds = async () =>
  Number((await database.query<{ now: string }>("select floor(extract(epoch from now())) as now"))[0]?.now);

/** How many statements that begin so the server was sent by this queue while `work` ran. */
async function statementsDuring(queue: Queue, work: () => Promise<unknown>): Promise<string[]> {
  const sent: string[] = [];
  const { query } = pg.Client.prototype;
  pg.Client.prototype.query = function (this: pg.Client, ...args: unknown[]) {
    const [first] = args as [string | { text: string }];
    sent.push(typeof first === "string" ? first : first.text);
    return Reflect.apply(query, this, args);
  } as typeof query;
  try {
    await queue.connect();
    sent.length = 0;
    await work();
  } finally {
    pg.Client.prototype.query = query;
  }
  return sent;
}

describe("what is stored", () => {
  it("V-5.1, J-30: a new job with nothing but its payload", async () => {
    const queue = open();
    const job = await queue.enqueue("hello", { a: 1 });
    const row = await rowOf(database, job.key);
    expect(row).toMatchObject({
      queue: queue.name,
      status: "queued",
      priority: 0,
      group_key: null,
      expire_at: null,
    });
    expect(Math.abs(Number(row?.scheduled) - (await nowSeconds()))).toBeLessThanOrEqual(1);
    const document = JSON.parse(row?.text ?? "");
    expect(document).toEqual({
      function: "hello",
      kwargs: { a: 1 },
      queue: queue.name,
      key: job.key,
      queued: expect.any(Number),
      status: "queued",
    });
    expect(Math.abs(document.queued / 1000 - (await nowSeconds()))).toBeLessThan(2);
    expect(pythonComplaints(row?.text ?? "", queue.name)).toEqual([]);
  });

  it("Q-1: every option, in the document and in its column", async () => {
    const queue = open();
    const scheduled = (await nowSeconds()) + 60;
    const job = await queue.enqueue(
      "hello",
      { a: 1 },
      {
        key: "every-option",
        timeout: null,
        heartbeat: 3,
        retries: 4,
        ttl: -1,
        retryDelay: 1.5,
        retryBackoff: 30,
        scheduled,
        priority: 7,
        groupKey: "g",
        meta: { trace: "x" },
      },
    );
    const row = await rowOf(database, "every-option");
    expect(row).toMatchObject({ status: "queued", scheduled, priority: 7, group_key: "g" });
    expect(JSON.parse(row?.text ?? "")).toMatchObject({
      timeout: null,
      heartbeat: 3,
      retries: 4,
      ttl: -1,
      retry_delay: 1.5,
      retry_backoff: 30,
      scheduled,
      priority: 7,
      group_key: "g",
      meta: { trace: "x" },
    });
    expect(pythonComplaints(row?.text ?? "", queue.name)).toEqual([]);
    expect(job).toMatchObject({ key: "every-option", scheduled, priority: 7, retries: 4, timeout: null });
  });

  it("S-25: what is given to enqueue comes before the task's own, and that before the queue's", async () => {
    const queue = open({ defaults: { timeout: 30, retries: 3, ttl: 60, heartbeat: 9 } });
    const plain = await queue.enqueue("hello");
    expect(plain).toMatchObject({ timeout: 30, retries: 3, ttl: 60, heartbeat: 9, retryDelay: 0 });
    const own = await queue.enqueue("patient");
    expect(own).toMatchObject({
      timeout: 120,
      retries: 5,
      ttl: 60,
      heartbeat: 9,
      retryDelay: 2,
      retryBackoff: true,
    });
    const given = await queue.enqueue("patient", undefined, { timeout: null, retries: 1, ttl: undefined });
    expect(given).toMatchObject({ timeout: null, retries: 1, ttl: 60, retryDelay: 2 });
    // J-15: what counts is what is stored.
    expect(await queue.job(given.key)).toMatchObject({ timeout: null, retries: 1, ttl: 60, retryDelay: 2 });
  });

  it("Q-2: a delay from now is rounded up by the database's clock", async () => {
    const queue = open();
    const before = await nowSeconds();
    const job = await queue.enqueue("hello", {}, { scheduled: inSeconds(30) });
    const { scheduled = 0 } = (await rowOf(database, job.key)) ?? {};
    expect(scheduled).toBeGreaterThanOrEqual(before + 30);
    expect(scheduled).toBeLessThanOrEqual((await nowSeconds()) + 31);
    expect(job.scheduled).toBe(scheduled);
  });

  it("D-64: texts with NUL, lone surrogates and every kind of letter come back as they were", async () => {
    const queue = open();
    const payload = { text: "\0 \ud800 \udfff é ☃ 😀 \\u0000 \" ' \n", "a\0b": 1 };
    const job = await queue.enqueue("hello", payload);
    expect((await queue.job(job.key))?.kwargs).toEqual(payload);
  });
});

describe("what is refused", () => {
  it.each<[string, object, string]>([
    ["a NUL in the key", { key: "a\0b" }, "A job's key must not contain a NUL character"],
    ["an empty key", { key: "" }, "A job key must have 1 to 2000 bytes, got 0: "],
    ["a long key", { key: "é".repeat(1_001) }, "A job key must have 1 to 2000 bytes, got 2002: ééé"],
    ["half a character in the key", { key: "a\ud800" }, "A job's key must not contain half of a character"],
    ["a NUL in the group", { groupKey: "a\0b" }, "A job's groupKey must not contain a NUL character"],
    ["half a character in the group", { groupKey: "\udc00" }, "A job's groupKey must not contain half"],
    ["a long group", { groupKey: "g".repeat(2_001) }, "A job's groupKey must have at most 2000 bytes"],
    ["a priority", { priority: 40_000 }, "priority must be a whole number of -32768 to 32767, got 40000"],
    [
      "a fractional priority",
      { priority: 0.5 },
      "priority must be a whole number of -32768 to 32767, got 0.5",
    ],
    [
      "a negative timeout",
      { timeout: -1 },
      'enqueue("hello"): timeout must be null or seconds >= 0 (0 and null: no limit), got -1',
    ],
    [
      "a NaN",
      { heartbeat: Number.NaN },
      'enqueue("hello"): heartbeat must be seconds >= 0 (0: off), got NaN',
    ],
    [
      "half an attempt",
      { retries: 1.5 },
      'enqueue("hello"): retries must be a whole number >= 0 of attempts in all, got 1.5',
    ],
    [
      "a fractional ttl",
      { ttl: 0.5 },
      'enqueue("hello"): ttl must be whole seconds (0: keep for ever, -1: delete at once), got 0.5',
    ],
    ["a text as delay", { retryDelay: "1" }, 'enqueue("hello"): retryDelay must be seconds >= 0, got 1'],
    ["a time in ms", { scheduled: 1795303141785 }, "(milliseconds? divide by 1000)"],
    ["a delay without end", { scheduled: { delaySeconds: 1e300 } }, "got inSeconds(1e+300)"],
  ])("%s, with a plain sentence and nothing stored", async (_, options, message) => {
    const queue = open();
    const refused = queue.enqueue("hello", {}, options);
    await expect(refused).rejects.toThrow(InvalidJobError);
    await expect(refused).rejects.toThrow(message);
    expect(await queue.counts()).toMatchObject({ queued: 0, scheduled: 0 });
  });

  it("a payload that JSON cannot write, or that is no object", async () => {
    const queue = open();
    const cycle: Record<string, unknown> = {};
    cycle.self = cycle;
    await expect(queue.enqueue("hello", { n: 1n })).rejects.toThrow(
      /^The payload of "hello" cannot be written as JSON: .*BigInt/,
    );
    await expect(queue.enqueue("hello", cycle)).rejects.toThrow(
      /^The payload of "hello" cannot be written as JSON/,
    );
    await expect(queue.enqueue("hello", [1])).rejects.toThrow(
      'The payload of "hello" must be an object of named values, got an array; wrap it: { value: ... }',
    );
  });

  it("a document of more than 64 MB", async () => {
    const queue = open();
    await expect(queue.enqueue("hello", { text: "x".repeat(64 * 1024 * 1024) })).rejects.toThrow(
      "The job is 64 MB as JSON, at most 64 MB can be stored; store the data elsewhere and enqueue a reference to it",
    );
  });

  it("a task that the queue does not have", async () => {
    const queue = open() as unknown as Queue;
    await expect(queue.enqueue("helo", {})).rejects.toMatchObject({
      code: "unknown_task",
      message: `Queue "${queue.name}" has no task "helo" (registered: hello, patient, checked)`,
    });
    await expect(queue.enqueue("constructor", {})).rejects.toMatchObject({ code: "unknown_task" });
  });

  it("a payload that the task's schema refuses, naming the field; the schema's input is stored", async () => {
    const queue = open();
    const refused = queue.enqueue("checked", { n: "3" });
    await expect(refused).rejects.toThrow(InvalidPayloadError);
    await expect(refused).rejects.toMatchObject({
      message: 'Invalid payload for task "checked": n: must be even',
      issues: [{ path: "n", message: "must be even" }],
    });
    const job = await queue.enqueue("checked", { n: "4" });
    expect((await queue.job(job.key))?.kwargs).toEqual({ n: "4" });
  });

  it("bad data rejects only the guilty call, the rest of its flush is stored", async () => {
    const queue = open();
    await database.query("alter table saq_jobs add constraint no_guilt check (group_key <> 'guilty')");
    try {
      const answers = await Promise.allSettled(
        Array.from({ length: 20 }, (_, n) =>
          queue.enqueue("hello", { n }, { groupKey: n === 13 ? "guilty" : "g" }),
        ),
      );
      expect(answers.flatMap(({ status }, n) => (status === "rejected" ? [n] : []))).toEqual([13]);
      expect(await queue.count("queued")).toBe(19);
    } finally {
      await database.query("alter table saq_jobs drop constraint no_guilt");
    }
  });
});

describe("a key that is taken", () => {
  /** Lets the key's job run and end. */
  const finish = async (queue: Queue<typeof tasks>) => {
    const [claimed] = await claim(queue);
    if (!claimed) throw new Error("nothing to claim");
    await queue.broker.settle(settlement(claimed, "complete", { result: 1, completed: 5 }));
  };
  let keys = 0;
  const newKey = () => `taken-${++keys}`;

  it("V-5.3, D-31: by a waiting, running or aborting job: null, and the row stays as it is", async () => {
    const queue = open();
    const key = newKey();
    await queue.enqueue("hello", { n: 1 }, { key });
    for (const change of ["queued", "active", "aborting"]) {
      await database.query("update saq_jobs set status = $2 where key = $1", [key, change]);
      const before = await rowOf(database, key);
      expect(await queue.enqueue("hello", { n: 2 }, { key })).toBeNull();
      expect(await queue.enqueueDetailed("hello", { n: 2 }, { key })).toEqual({
        enqueued: false,
        reason: "key_alive",
        key,
      });
      expect(await rowOf(database, key)).toEqual(before);
    }
  });

  it("V-5.2: by a finished job: taken over as a whole", async () => {
    const queue = open();
    const key = newKey();
    await queue.enqueue("hello", { n: 1 }, { key, meta: { old: true }, retries: 3 });
    await finish(queue);
    expect(await rowOf(database, key)).toMatchObject({ status: "complete", expire_at: expect.any(Number) });
    const again = await queue.enqueueDetailed("hello", { n: 2 }, { key, priority: 4, groupKey: "g" });
    expect(again).toMatchObject({ enqueued: true, job: { key, kwargs: { n: 2 } } });
    const row = await rowOf(database, key);
    expect(row).toMatchObject({ status: "queued", priority: 4, group_key: "g", expire_at: null });
    expect(JSON.parse(row?.text ?? "")).toEqual({
      function: "hello",
      kwargs: { n: 2 },
      queue: queue.name,
      key,
      queued: expect.any(Number),
      status: "queued",
      priority: 4,
      group_key: "g",
    });
  });

  it("V-5.2, D-31: by a finished job that was due later: refused with that reason", async () => {
    const queue = open();
    const key = newKey();
    const scheduled = (await nowSeconds()) + 1_000;
    await queue.enqueue("hello", {}, { key, scheduled });
    await database.query("update saq_jobs set status = 'complete' where key = $1", [key]);
    const refused = { enqueued: false, reason: "scheduled_not_later", key };
    expect(await queue.enqueueDetailed("hello", {}, { key })).toEqual(refused);
    expect(await queue.enqueueDetailed("hello", {}, { key, scheduled })).toEqual(refused);
    expect(await queue.enqueueDetailed("hello", {}, { key, scheduled: scheduled + 1 })).toMatchObject({
      enqueued: true,
    });
  });

  it("D-14: by another queue: refused with that reason, finished or not, and never moved", async () => {
    const [here, there] = [open(), open()];
    const key = newKey();
    await there.enqueue("hello", {}, { key });
    const refused = { enqueued: false, reason: "other_queue", key };
    expect(await here.enqueueDetailed("hello", {}, { key })).toEqual(refused);
    await finish(there);
    expect(await here.enqueueDetailed("hello", {}, { key })).toEqual(refused);
    expect(await rowOf(database, key)).toMatchObject({ queue: there.name, status: "complete" });
    expect(await here.job(key)).toBeNull();
  });

  it("D-13: refusals use up no number of the sequence", async () => {
    const queue = open();
    const key = newKey();
    const lastNumber = async () =>
      (await database.query<{ last_value: string }>("select last_value from saq_jobs_lock_key_seq"))[0]
        ?.last_value;
    await queue.enqueue("hello", {}, { key });
    const before = await lastNumber();
    for (let n = 0; n < 50; n++) expect(await queue.enqueue("hello", {}, { key })).toBeNull();
    expect(await lastNumber()).toBe(before);
  });

  it("V-5.3: fifty calls at once with one key store one job", async () => {
    const queue = open();
    const key = newKey();
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, n) => queue.enqueue("hello", { n }, { key })),
    );
    expect(answers.filter((job) => job !== null)).toHaveLength(1);
    expect((await queue.job(key))?.kwargs).toEqual(answers.find((job) => job !== null)?.kwargs);
  });

  it("V-5.3: two processes that flush the same keys in opposite order neither deadlock nor store twice", async () => {
    const [one, two] = [open(), open()];
    // The same queue twice, as two processes have it.
    const other = openQueue(database, tasks, { name: one.name });
    await two.close();
    const names = Array.from({ length: 100 }, () => newKey());
    const [left, right] = await Promise.all([
      Promise.all(names.map((key) => one.enqueue("hello", {}, { key }))),
      Promise.all(names.toReversed().map((key) => other.enqueue("hello", {}, { key }))),
    ]);
    expect([...left, ...right].filter((job) => job !== null)).toHaveLength(100);
  });

  it("a key that somebody's open transaction holds rejects after 2 s, the rest of its flush is stored", async () => {
    const queue = open();
    await queue.connect();
    const held = newKey();
    const other = await database.connect();
    await other.query("begin");
    await other.query("insert into saq_jobs (key, job, queue, status) values ($1, 'x', $2, 'queued')", [
      held,
      queue.name,
    ]);
    const answers = await Promise.allSettled([
      queue.enqueue("hello", {}, { key: newKey() }),
      queue.enqueue("hello", {}, { key: held }),
      queue.enqueue("hello", {}, { key: newKey() }),
    ]);
    await other.query("rollback");
    expect(answers.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
    expect(answers[1]).toMatchObject({
      reason: {
        code: "key_held",
        message:
          `Job key "${held}" is held by a transaction that has been open for over 2 s; nothing was stored. ` +
          "Enqueue it again when that transaction has ended.",
      },
    });
    expect(await queue.enqueue("hello", {}, { key: held })).not.toBeNull();
  }, 15_000);
});

describe("many at once", () => {
  it("5.1: fifty calls in flight leave in two statements", async () => {
    const queue = open();
    const sent = await statementsDuring(queue as unknown as Queue, async () => {
      const first = queue.enqueue("hello");
      await new Promise(setImmediate);
      await Promise.all([first, ...Array.from({ length: 50 }, () => queue.enqueue("hello"))]);
    });
    expect(sent.length).toBeLessThanOrEqual(3);
    expect(await queue.count("queued")).toBe(51);
  });

  it("5.1: generated keys are claimed in the order of the calls", async () => {
    const queue = open();
    const jobs = await Promise.all(Array.from({ length: 300 }, (_, n) => queue.enqueue("hello", { n })));
    const claimed = await claim(queue, { limit: 300 });
    expect(claimed.map(({ key }) => key)).toEqual(jobs.map(({ key }) => key));
  });

  it("Q-16: enqueueMany stores all in one statement per lane and answers in order, null where a key is taken", async () => {
    const queue = open();
    await queue.enqueue("hello", {}, { key: "many-1" });
    let jobs: Awaited<ReturnType<typeof queue.enqueueMany>> = [];
    const sent = await statementsDuring(queue as unknown as Queue, async () => {
      jobs = await queue.enqueueMany([
        { task: "hello", payload: { n: 0 } },
        { task: "hello", payload: { n: 1 }, key: "many-1" },
        { task: "checked", payload: { n: "2" }, key: "many-2", scheduled: inSeconds(60) },
        ...Array.from({ length: 500 }, (_, n) => ({ task: "hello" as const, payload: { n } })),
      ]);
    });
    expect(sent).toHaveLength(2);
    expect(jobs).toHaveLength(503);
    expect(jobs[1]).toBeNull();
    expect(jobs[2]).toMatchObject({ key: "many-2", function: "checked" });
    expect(await queue.counts()).toMatchObject({ queued: 502, scheduled: 1 });
    expect(await queue.enqueueMany([])).toEqual([]);
  });

  it.each([
    ["key", { key: "a\0b" }],
    ["payload", { payload: { n: 1n } }],
    ["priority", { priority: 1e6 }],
  ])("Q-16: enqueueMany stores nothing when an entry has a bad %s", async (_, bad) => {
    const queue = open();
    await expect(
      queue.enqueueMany([
        { task: "hello", payload: {} },
        { task: "hello", payload: {}, ...bad },
        { task: "hello", payload: {} },
      ]),
    ).rejects.toThrow(InvalidJobError);
    // Leaves after whatever the refused call may have left in its lane.
    await queue.enqueue("hello");
    expect(await queue.count("queued")).toBe(1);
  });
});

describe("in the caller's transaction", () => {
  it("Q-16: the job and its notification are there when it commits, and never when it rolls back", async () => {
    const queue = open();
    await queue.connect();
    const heard: string[] = [];
    const listener = await database.connect();
    listener.on("notification", ({ channel, payload }) => heard.push(`${channel} ${payload}`));
    await listener.query(`listen "saq:${queue.name}"`);
    const client = await database.connect();

    await client.query("begin");
    const dropped = await queue.enqueue("hello", {}, { client });
    expect(await queue.job(dropped.key)).toBeNull();
    await client.query("rollback");
    expect(await queue.job(dropped.key)).toBeNull();

    await client.query("begin");
    const kept = await queue.enqueue("hello", {}, { client });
    // Notifications come in the order of commits: had the insert told at once, this marker would come after it.
    await database.query(`select pg_notify('saq:${queue.name}', 'marker')`);
    await client.query("commit");
    expect(await queue.job(kept.key)).toMatchObject({ key: kept.key, status: "queued" });
    await until(async () => heard.length >= 2);
    expect(heard).toEqual([`saq:${queue.name} marker`, `saq:${queue.name} saq:enqueue`]);
  });

  it("Q-16, V-5.3: a taken key is told as usual and leaves the transaction usable", async () => {
    const queue = open();
    await queue.enqueue("hello", {}, { key: "in-transaction" });
    const client = await database.connect();
    await client.query("begin");
    expect(await queue.enqueueDetailed("hello", {}, { client, key: "in-transaction" })).toEqual({
      enqueued: false,
      reason: "key_alive",
      key: "in-transaction",
    });
    const job = await queue.enqueue("hello", {}, { client });
    await client.query("commit");
    expect(await queue.job(job.key)).not.toBeNull();
  });
});

describe("notifications", () => {
  it("P-11, P-21: one for a flush with something due, none for jobs that are not", async () => {
    const queue = open();
    await queue.connect();
    const heard: string[] = [];
    const listener = await database.connect();
    listener.on("notification", ({ payload }) => heard.push(String(payload)));
    await listener.query(`listen "saq:${queue.name}"`);
    await queue.enqueue("hello", {}, { scheduled: inSeconds(60) });
    await queue.enqueueMany(Array.from({ length: 100 }, () => ({ task: "hello" as const, payload: {} })));
    await database.query(`select pg_notify('saq:${queue.name}', 'end')`);
    await until(async () => heard.includes("end"));
    expect(heard).toEqual(["saq:enqueue", "end"]);
  });

  it("P-20: a queue name of 59 bytes is heard on its channel", async () => {
    const name = `${"é".repeat(29)}x`;
    const queue = openQueue(database, tasks, { name });
    await queue.connect();
    const listener = await database.connect();
    const heard = new Promise((resolve) => listener.once("notification", resolve));
    await listener.query(`listen "saq:${name}"`);
    await queue.enqueue("hello");
    expect(await heard).toMatchObject({ payload: "saq:enqueue" });
  });
});

describe("a connection that is lost during a flush", () => {
  /** Ends the queue's connections as soon as one of them waits for a lock. */
  const cutWhenBlocked = async (queue: Queue<typeof tasks>) => {
    const busy = "from pg_stat_activity where datname = current_database() and application_name = 'saq'";
    await until(
      async () => (await database.query(`select 1 ${busy} and wait_event_type = 'Lock'`)).length > 0,
    );
    await database.query(`select pg_terminate_backend(pid) ${busy}`);
    return queue;
  };

  it("5.1: generated keys are sent again and stored once", async () => {
    const queue = open();
    await queue.connect();
    const other = await database.connect();
    await other.query("begin; lock table saq_jobs in share mode");
    const enqueued = Promise.all(Array.from({ length: 10 }, (_, n) => queue.enqueue("hello", { n })));
    await cutWhenBlocked(queue);
    await other.query("commit");
    const jobs = await enqueued;
    expect(await queue.count("queued")).toBe(10);
    expect(new Set(jobs.map(({ key }) => key)).size).toBe(10);
  });

  it("5.1: a key of one's own is recognised by its `queued` time when the first try was stored", async () => {
    const proxy = await openProxy(database);
    const queue = openQueue(proxy, tasks);
    await queue.connect();
    const swallowed = proxy.mute();
    const enqueued = queue.enqueue("hello", { n: 1 }, { key: "sent-twice" });
    await swallowed;
    expect(await rowOf(database, "sent-twice")).toMatchObject({ status: "queued" });
    proxy.cut();
    expect(await enqueued).toMatchObject({ key: "sent-twice" });
    expect(await queue.count("queued")).toBe(1);
  });

  it("5.1: and refused as usual when another's job holds the key", async () => {
    const proxy = await openProxy(database);
    const queue = openQueue(proxy, tasks);
    await queue.enqueue("hello", { n: 1 }, { key: "another's" });
    await database.query(
      `update saq_jobs set job = convert_to(regexp_replace(convert_from(job, 'UTF8'), '"queued":\\d+', '"queued":1'), 'UTF8')
       where key = $1`,
      ["another's"],
    );
    const swallowed = proxy.mute();
    const enqueued = queue.enqueueDetailed("hello", { n: 2 }, { key: "another's" });
    await swallowed;
    proxy.cut();
    expect(await enqueued).toEqual({ enqueued: false, reason: "key_alive", key: "another's" });
  });
});
