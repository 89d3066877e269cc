/**
 * How enqueues reach the server: many in few statements, with one notification, and only once if a connection breaks.
 */
import { beforeAll, describe, expect, it } from "@jest/globals";
import pg from "pg";
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import { InvalidJobError } from "../../../templates/backend/saq/errors.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { openProxy } from "../support/cuttable-proxy.js";
import {
  claim,
  editRow,
  openQueue,
  rowOf,
  settle,
  settlement,
  until,
  useDatabase,
} from "../support/scenario.js";
import {
  itOnPostgres,
  itOnTables,
  itWithProxy,
  onRedis,
  possible,
  testBroker,
} from "../support/test-broker.js";

const database = useDatabase();

const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };
const open = (options: Parameters<typeof openQueue>[2] = {}) => openQueue(database, tasks, options as object);

// One start creates the tables, so that no test measures that.
beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

/** Returns the texts of all statements that this process sends while `work` runs. */
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

describe("many enqueues at once", () => {
  itOnPostgres("51 calls in flight are sent in at most three statements", async () => {
    const queue = open();
    const sent = await statementsDuring(queue as unknown as Queue, async () => {
      const first = queue.enqueue("hello");
      await new Promise(setImmediate);
      await Promise.all([first, ...Array.from({ length: 50 }, () => queue.enqueue("hello"))]);
    });
    expect(sent.length).toBeLessThanOrEqual(3);
    expect(await queue.count("queued")).toBe(51);
  });

  it("jobs with generated keys are claimed in the order of the calls", async () => {
    const queue = open();
    const jobs = await Promise.all(Array.from({ length: 300 }, (_, n) => queue.enqueue("hello", { n })));
    const claimed = await claim(queue, { limit: 300 });
    expect(claimed.map(({ key }) => key)).toEqual(jobs.map(({ key }) => key));
  });

  it("Q-16: enqueueMany sends one statement per lane and returns jobs in order, null where a key is taken", async () => {
    const queue = open();
    await queue.enqueue("hello", {}, { key: "many-1" });
    let jobs: Awaited<ReturnType<typeof queue.enqueueMany>> = [];
    const sent = await statementsDuring(queue as unknown as Queue, async () => {
      jobs = await queue.enqueueMany([
        { task: "hello", payload: { n: 0 } },
        { task: "hello", payload: { n: 1 }, key: "many-1" },
        { task: "hello", payload: { n: 2 }, key: "many-2", scheduled: inSeconds(60) },
        ...Array.from({ length: 500 }, (_, n) => ({ task: "hello" as const, payload: { n } })),
      ]);
    });
    if (testBroker.name === "postgres") expect(sent).toHaveLength(2);
    expect(jobs).toHaveLength(503);
    expect(jobs[1]).toBeNull();
    expect(jobs[2]).toMatchObject({ key: "many-2", kwargs: { n: 2 } });
    expect(await queue.counts()).toMatchObject({ queued: 502, scheduled: 1 });
    expect(await queue.enqueueMany([])).toEqual([]);
  });

  it("J-1, D-64: jobs that share a statement keep their own texts, priorities, groups and times", async () => {
    const queue = open();
    const texts = ["\x1e", "a\0b", "\ud800 half", 'a "quoted" \\ {text}, é ☃ 😀', "line\nfeed", "null", ""];
    const plain = texts.map((text) => ({ task: "hello" as const, payload: { text } }));
    const placing = possible({ priority: -3, groupKey: 'g,"1"' });
    const placed = { payload: { text: "placed" }, ...placing, scheduled: 4_000_000_000 };
    for (const entries of [plain, [...plain, { task: "hello" as const, ...placed }]]) {
      const made = await queue.enqueueMany(entries);
      const jobs = await queue.jobs(made.map((job) => job?.key ?? ""));
      expect(jobs.map((job) => job?.kwargs)).toEqual(entries.map(({ payload }) => payload));
      const now = Date.now() / 1000;
      for (const [index, job] of jobs.entries()) {
        const row = await rowOf(database, job?.key ?? "");
        if (index < texts.length) expect(row).toMatchObject({ priority: 0, group_key: null });
        else
          expect(row).toMatchObject({
            priority: placing.priority ?? 0,
            group_key: placing.groupKey ?? null,
          });
        const due = index < texts.length ? (onRedis ? 0 : now) : placed.scheduled;
        expect(Math.abs(Number(row?.scheduled) - due)).toBeLessThan(60);
      }
    }
  });

  it.each([
    ["key", { key: "a\0b" }],
    ["payload", { payload: { n: 1n } }],
    ["priority", { priority: 1e6 }],
    ["client", { client: { query: async () => ({ rows: [] }) } }],
  ])("Q-16: enqueueMany stores nothing when an entry has a bad %s", async (_, bad) => {
    const queue = open();
    await expect(
      queue.enqueueMany([
        { task: "hello", payload: {} },
        { task: "hello", payload: {}, ...bad },
        { task: "hello", payload: {} },
      ]),
    ).rejects.toThrow(InvalidJobError);
    // This job leaves after anything that the refused call may have left in its lane.
    await queue.enqueue("hello");
    expect(await queue.count("queued")).toBe(1);
  });

  itOnTables("Q-16: enqueueMany says that an entry has a client, and where to pass it", async () => {
    const client = await database.connect();
    const entry = { task: "hello" as const, payload: {}, client };
    await expect(open().enqueueMany([entry])).rejects.toThrow(
      new InvalidJobError(
        'enqueueMany: the entry of task "hello" has a client, but enqueueMany cannot store jobs in your own ' +
          "transaction; call enqueue(task, payload, { client }) for each job",
      ),
    );
  });
});

describe("notifications", () => {
  itOnPostgres(
    "P-11, P-21: a flush with jobs that are due within 10 s sends one notification; later jobs send none",
    async () => {
      const queue = open();
      await queue.connect();
      const heard: string[] = [];
      const listener = await database.connect();
      listener.on("notification", ({ payload }) => heard.push(String(payload)));
      await listener.query(`listen "saq:${queue.name}"`);
      await queue.enqueue("hello", {}, { scheduled: inSeconds(60) });
      await queue.enqueueMany(Array.from({ length: 100 }, () => ({ task: "hello" as const, payload: {} })));
      await queue.enqueue("hello", {}, { scheduled: inSeconds(8) });
      await database.query(`select pg_notify('saq:${queue.name}', 'end')`);
      await until(async () => heard.includes("end"));
      expect(heard).toEqual(["saq:enqueue", "saq:enqueue", "end"]);
    },
  );

  itOnPostgres("P-20: a queue whose name has 59 bytes sends notifications on its own channel", async () => {
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
  /** Terminates the queue's connections as soon as one of them waits for a lock. */
  const cutWhenBlocked = async (queue: Queue<typeof tasks>) => {
    const busy = "from pg_stat_activity where datname = current_database() and application_name = 'saq'";
    await until(
      async () => (await database.query(`select 1 ${busy} and wait_event_type = 'Lock'`)).length > 0,
    );
    await database.query(`select pg_terminate_backend(pid) ${busy}`);
    return queue;
  };

  itOnPostgres("jobs with generated keys are sent again and stored once", async () => {
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

  itWithProxy("jobs are stored once when the first try was stored and its response was lost", async () => {
    const proxy = await openProxy(database);
    const queue = openQueue(proxy, tasks);
    await queue.connect();
    const swallowed = proxy.mute();
    const enqueued = queue.enqueueMany(
      Array.from({ length: 10 }, (_, n) => ({ task: "hello" as const, payload: { n } })),
    );
    await swallowed;
    expect(await database.stored.rows(queue.name)).toHaveLength(10);
    proxy.cut();
    const keys = (await enqueued).map((job) => job?.key);
    expect((await queue.jobs(keys as string[])).map((job) => job?.kwargs?.n)).toEqual(
      keys.map((_, index) => index),
    );
    expect(await queue.count("queued")).toBe(10);
  });

  itWithProxy.each([
    ["generated keys", {}],
    ["a key of the caller", { key: "gone at once" }],
  ])("a job runs once when its row is deleted before the job is sent again: %s", async (_name, options) => {
    const proxy = await openProxy(database);
    const queue = openQueue(proxy, tasks);
    const worker = openQueue(database, tasks, { name: queue.name });
    await queue.connect();
    const swallowed = proxy.mute();
    const enqueued = queue.enqueue("hello", { n: 1 }, { ttl: -1, ...options });
    await swallowed;
    const [job] = await claim(worker);
    if (!job) throw new Error("nothing was stored");
    await settle(worker, settlement(job, "complete", { result: 1, completed: 5 }, { keep: -1 }));
    expect(await rowOf(database, job.key)).toBeUndefined();
    proxy.cut();
    expect(await enqueued).toMatchObject({ key: job.key });
    expect(await claim(worker)).toEqual([]);
  });

  itOnPostgres.each([
    ["short-lived", { ttl: -1 }],
    ["ordinary", {}],
  ])(
    "the retry stores a job that was left out because its key was held, beside a job that is %s",
    async (what, options) => {
      const held = `held beside ${what}`;
      const queue = open();
      const worker = openQueue(database, tasks, { name: queue.name });
      await queue.connect();
      const holder = await database.connect();
      await holder.query("begin");
      await holder.query("insert into saq_jobs (key, queue, status, job) values ($1, 'q', 'queued', '{}')", [
        held,
      ]);
      const { query } = pg.Client.prototype;
      let [metHeldKey, hasBroken] = [false, false];
      let first: Promise<unknown> = Promise.resolve();
      // The commit is carried out and its response is lost. Meanwhile the job of the held key is stored and run.
      pg.Client.prototype.query = async function (this: pg.Client, ...args: unknown[]) {
        const answer = Reflect.apply(query, this, args) as Promise<unknown>;
        if (args[0] === "commit" && !hasBroken) {
          hasBroken = true;
          await answer;
          await holder.query("rollback");
          await first;
          for (const job of await claim(worker))
            await settle(worker, settlement(job, "complete", { result: 1, completed: 5 }, { keep: -1 }));
          throw Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" });
        }
        return Promise.resolve(answer).catch((error: pg.DatabaseError) => {
          metHeldKey ||= error.code === "55P03";
          throw error;
        });
      } as typeof query;
      try {
        first = queue.enqueue("hello", { n: 1 }, { key: held, ttl: -1 });
        await until(async () => metHeldKey);
        const jobs = await queue.enqueueMany([
          { task: "hello", payload: { n: 2 }, key: held, ttl: -1 },
          { task: "hello", payload: { n: 3 }, key: `beside ${what}`, ...options },
        ]);
        expect(hasBroken).toBe(true);
        expect(jobs.map((job) => job?.key)).toEqual([held, `beside ${what}`]);
        expect((await claim(worker)).map(({ key }) => key)).toEqual([held]);
      } finally {
        pg.Client.prototype.query = query;
      }
    },
  );

  itOnPostgres("a job is stored when its first try was not stored", async () => {
    const proxy = await openProxy(database);
    const queue = openQueue(proxy, tasks);
    await queue.connect();
    const other = await database.connect();
    await other.query("begin; lock table saq_jobs in share mode");
    const enqueued = queue.enqueue("hello", { n: 1 }, { ttl: -1 });
    await until(async () => {
      const waiting = await database.query(
        "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
      );
      return waiting.length > 0;
    });
    proxy.cut();
    await other.query("commit");
    await enqueued;
    expect(await queue.count("queued")).toBe(1);
  });

  itWithProxy(
    "in an outage each call rejects after its own 8 s, also a call that waits behind another",
    async () => {
      const proxy = await openProxy(database);
      const queue = openQueue(proxy, tasks);
      await queue.enqueue("hello");
      proxy.refuse();
      const began = performance.now();
      const { tries } = proxy;
      const first = queue.enqueue("hello");
      const behind: Promise<unknown>[] = [first];
      // Both calls are made while the first one is in progress.
      await Promise.race([until(async () => proxy.tries > tries), first]);
      behind.push(queue.enqueue("hello"), queue.enqueue("hello", {}, { key: "in an outage" }));
      const answers = await Promise.allSettled(behind);
      expect(answers.map(({ status }) => status)).toEqual(["rejected", "rejected", "rejected"]);
      for (const answer of answers)
        expect(answer).toMatchObject({ reason: { code: "database_unavailable" } });
      expect(performance.now() - began).toBeLessThan(14_000);
      proxy.admit();
    },
    600_000,
  );

  itWithProxy(
    "a job with a key of the caller is recognised by its `queued` time when the first try was stored",
    async () => {
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
    },
  );

  itWithProxy("jobs with a key of the caller are not run again when they have already ended", async () => {
    const proxy = await openProxy(database);
    const queue = openQueue(proxy, tasks);
    const worker = openQueue(database, tasks, { name: queue.name });
    await queue.connect();
    const swallowed = proxy.mute();
    const enqueued = queue.enqueueMany([
      { task: "hello", payload: { n: 1 }, key: "over-soon" },
      { task: "hello", payload: { n: 2 }, key: "beside-it" },
    ]);
    await swallowed;
    for (const job of await claim(worker))
      await settle(worker, settlement(job, "complete", { result: 1, completed: 5 }));
    proxy.cut();
    expect((await enqueued).map((job) => job?.key)).toEqual(["over-soon", "beside-it"]);
    expect(await queue.counts()).toMatchObject({ complete: 2, queued: 0 });
  });

  itWithProxy("a job is refused as usual when a job of another caller has the key", async () => {
    const proxy = await openProxy(database);
    const queue = openQueue(proxy, tasks);
    await queue.enqueue("hello", { n: 1 }, { key: "another's" });
    await editRow(database, "another's", { members: { queued: 1 } });
    const swallowed = proxy.mute();
    const enqueued = queue.enqueueDetailed("hello", { n: 2 }, { key: "another's" });
    await swallowed;
    proxy.cut();
    expect(await enqueued).toEqual({ enqueued: false, reason: "key_alive", key: "another's" });
  });
});
