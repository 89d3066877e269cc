/** Enqueues with a key of the caller: what happens if it is taken (V-5.1 to V-5.3), and in the caller's transaction. */
import { beforeAll, describe, expect, it } from "@jest/globals";
import pg from "pg";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import {
  claim,
  openQueue,
  rowOf,
  serverSeconds,
  settle,
  settlement,
  until,
  useDatabase,
} from "../support/scenario.js";
import { itOnPostgres, itOnRedis, itOnTables, possible } from "../support/test-broker.js";

const database = useDatabase();

const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };
const open = (options: Parameters<typeof openQueue>[2] = {}) => openQueue(database, tasks, options as object);

// One start creates the tables, so that no test measures that.
beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

const nowSeconds = () => serverSeconds(database);

describe("a key that is taken", () => {
  /** Claims the key's job and settles it as complete. */
  const finish = async (queue: Queue<typeof tasks>) => {
    const [claimed] = await claim(queue);
    if (!claimed) throw new Error("nothing to claim");
    await settle(queue, settlement(claimed, "complete", { result: 1, completed: 5 }));
  };
  let keys = 0;
  const newKey = () => `taken-${++keys}`;

  it("V-5.3, D-31, T-4: enqueue returns null and changes nothing when the job is queued, active or aborting", async () => {
    const queue = open();
    const key = newKey();
    await queue.enqueue("hello", { n: 1 }, { key });
    const changes = [async () => {}, () => claim(queue), () => queue.abort(key)];
    for (const [index, status] of ["queued", "active", "aborting"].entries()) {
      await changes[index]?.();
      expect((await queue.job(key))?.status).toBe(status);
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

  it("V-5.2: a new job replaces a finished job as a whole", async () => {
    const queue = open();
    const key = newKey();
    await queue.enqueue("hello", { n: 1 }, { key, meta: { old: true }, retries: 3 });
    await finish(queue);
    expect(await rowOf(database, key)).toMatchObject({ status: "complete", expire_at: expect.any(Number) });
    const placed = possible({ priority: 4, groupKey: "g" });
    const again = await queue.enqueueDetailed("hello", { n: 2 }, { key, ...placed });
    expect(again).toMatchObject({ enqueued: true, job: { key, kwargs: { n: 2 } } });
    const row = await rowOf(database, key);
    const { priority, groupKey } = placed;
    expect(row).toMatchObject({
      status: "queued",
      priority: priority ?? 0,
      group_key: groupKey ?? null,
      expire_at: null,
    });
    expect(JSON.parse(row?.text ?? "")).toEqual({
      function: "hello",
      kwargs: { n: 2 },
      queue: queue.name,
      key,
      queued: expect.any(Number),
      status: "queued",
      ...(priority === undefined ? {} : { priority }),
      ...(groupKey === undefined ? {} : { group_key: groupKey }),
    });
  });

  itOnRedis("R-2: the key of a finished job is free at once, whenever the new job is due", async () => {
    const queue = open();
    const key = newKey();
    await queue.enqueue("hello", {}, { key, ttl: 0 });
    await finish(queue);
    const scheduled = (await nowSeconds()) + 1_000;
    expect(await queue.enqueueDetailed("hello", {}, { key, scheduled })).toMatchObject({ enqueued: true });
    await queue.abort(key);
    expect(await queue.enqueueDetailed("hello", {}, { key })).toMatchObject({ enqueued: true });
    expect(await rowOf(database, key)).toMatchObject({ status: "queued", place: "queued", expire_at: null });
  });

  itOnRedis("R-1: each queue has keys of its own", async () => {
    const [here, there] = [open(), open()];
    const key = newKey();
    await there.enqueue("hello", { n: 1 }, { key });
    expect(await here.job(key)).toBeNull();
    expect(await here.enqueue("hello", { n: 2 }, { key })).not.toBeNull();
    expect(await here.abort(key)).toBe("aborted");
    expect(await there.job(key)).toMatchObject({ status: "queued", kwargs: { n: 1 } });
  });

  itOnTables(
    "V-5.2, D-31: a new job is refused with a reason when the finished job was due later or at the same time",
    async () => {
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
    },
  );

  itOnPostgres("D-31: the reason describes what a faster process stored, not the previous row", async () => {
    const [one, two] = [open(), open()];
    const rival = open({ name: one.name });
    await Promise.all([one, rival, two].map((queue) => queue.connect()));
    const other = await database.connect();

    /** Null if the statements did not wait together: they wait for 2 s at most, and a busy machine may take longer. */
    const enqueueTogether = async () => {
      const [ours, theirs] = [newKey(), newKey()];
      await one.enqueue("hello", {}, { key: ours });
      await finish(one);
      // The first statement may continue only when every statement has begun and has seen the old rows.
      await other.query("begin");
      await other.query("select 1 from saq_jobs where key = $1 for update", [ours]);
      await other.query("insert into saq_jobs (key, queue, job, status) values ($1, 'x', '', 'queued')", [
        theirs,
      ]);
      const answers = Promise.all([
        ...[one, rival].map((queue) => queue.enqueueDetailed("hello", {}, { key: ours })),
        two.enqueueDetailed("hello", {}, { key: theirs }),
      ]);
      let isOver = false;
      const ended = answers.then(
        () => true,
        () => false,
      );
      void ended.then(() => {
        isOver = true;
      });
      let waiting = 0;
      await until(async () => {
        const rows = await database.query(
          "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
        );
        waiting = rows.length;
        return waiting === 3 || isOver;
      });
      await other.query("commit");
      return (await ended) && waiting === 3 ? answers : null;
    };

    let answers: Awaited<ReturnType<typeof enqueueTogether>> = null;
    for (let tries = 0; tries < 20 && answers === null; tries++) answers = await enqueueTogether();
    const [first, second, third] = answers ?? [];
    expect([first, second].filter((answer) => answer?.enqueued)).toHaveLength(1);
    expect([first, second].find((answer) => !answer?.enqueued)).toMatchObject({ reason: "key_alive" });
    expect(third).toMatchObject({ enqueued: false, reason: "other_queue" });
  });

  itOnTables(
    "D-14: a new job is refused with a reason when another queue has the key, also when its job is finished",
    async () => {
      const [here, there] = [open(), open()];
      const key = newKey();
      await there.enqueue("hello", {}, { key });
      const refused = { enqueued: false, reason: "other_queue", key };
      expect(await here.enqueueDetailed("hello", {}, { key })).toEqual(refused);
      await finish(there);
      expect(await here.enqueueDetailed("hello", {}, { key })).toEqual(refused);
      expect(await rowOf(database, key)).toMatchObject({ queue: there.name, status: "complete" });
      expect(await here.job(key)).toBeNull();
    },
  );

  itOnTables("D-13: a refused enqueue uses no number of the sequence", async () => {
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
    // The same queue opened a second time, as in a second process.
    const other = openQueue(database, tasks, { name: one.name });
    await two.close();
    const names = Array.from({ length: 100 }, () => newKey());
    const [left, right] = await Promise.all([
      Promise.all(names.map((key) => one.enqueue("hello", {}, { key }))),
      Promise.all(names.toReversed().map((key) => other.enqueue("hello", {}, { key }))),
    ]);
    expect([...left, ...right].filter((job) => job !== null)).toHaveLength(100);
  });

  itOnPostgres(
    "an enqueue rejects after 2 s when another transaction holds its key; the rest of its flush is stored",
    async () => {
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
    },
    600_000,
  );
});

describe("keys that another transaction holds", () => {
  /** Holds these keys like another program that has inserted them and has not committed yet. */
  const hold = async (queue: Queue<typeof tasks>, keys: readonly string[]) => {
    const other = await database.connect();
    await other.query("begin");
    await other.query(
      "insert into saq_jobs (key, job, queue, status) select key, 'x', $2, 'queued' from unnest($1::text[]) key",
      [keys, queue.name],
    );
    return other;
  };

  itOnPostgres(
    "do not delay other keys, in the same flush or in a later one",
    async () => {
      const queue = open();
      await queue.connect();
      const held = Array.from({ length: 20 }, (_, n) => `held ${n}`);
      const other = await hold(queue, held);
      const settled: string[] = [];
      const enqueue = (key: string) =>
        queue.enqueue("hello", {}, { key }).then(
          (job) => settled.push(`${key}: ${job ? "stored" : "taken"}`),
          (error: { code: string }) => settled.push(`${key}: ${error.code}`),
        );
      const first = [...held, "beside them"].map(enqueue);
      await until(async () => settled.includes("beside them: stored"));
      await enqueue("after them");
      // Some of the held keys still wait.
      expect(settled.length).toBeLessThan(held.length + 2);
      await Promise.all(first);
      expect(settled.toSorted()).toEqual(
        [...held.map((key) => `${key}: key_held`), "beside them: stored", "after them: stored"].toSorted(),
      );
      await other.query("rollback");
    },
    600_000,
  );

  itOnPostgres("are stored when that transaction has ended, one job for each key", async () => {
    const queue = open();
    await queue.connect();
    const held = Array.from({ length: 40 }, (_, n) => `freed ${n}`);
    const other = await hold(queue, held);
    const enqueued = Promise.all([...held, ...held].map((key) => queue.enqueue("hello", {}, { key })));
    await until(async () => {
      const waiting = await database.query(
        "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
      );
      return waiting.length > 0;
    });
    await other.query("rollback");
    expect((await enqueued).map((job) => job !== null)).toEqual([
      ...held.map(() => true),
      ...held.map(() => false),
    ]);
    expect(await queue.count("queued")).toBe(held.length);
  });

  itOnPostgres(
    "a deadlock rejects no call: the server rolls back the flush, and it is sent again",
    async () => {
      const url = new URL(database.url);
      url.searchParams.set("options", "-c deadlock_timeout=10ms");
      const queue = openQueue({ url: url.href }, tasks);
      await queue.connect();
      // The server checks for a deadlock once, soon after a wait began. So the flush has to be the last to wait.
      const [first, other] = [await database.connect(), await database.connect()];
      await other.query("set deadlock_timeout = '1h'");
      const insert = (client: pg.Client, key: string) =>
        client.query("insert into saq_jobs (key, job, queue, status) values ($1, 'x', 'q', 'queued')", [key]);
      await first.query("begin");
      await insert(first, "lock b");
      await other.query("begin");
      await insert(other, "lock c");
      const enqueued = Promise.allSettled(
        ["lock a", "lock b", "lock c"].map((key) => queue.enqueue("hello", {}, { key })),
      );
      const waiting = (count: number) => async () => {
        const rows = await database.query(
          "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
        );
        return rows.length >= count;
      };
      await until(waiting(1));
      const inserted = insert(other, "lock a");
      await Promise.race([until(waiting(2)), inserted]);
      await first.query("rollback");
      await inserted;
      await other.query("rollback");
      expect((await enqueued).map(({ status }) => status)).toEqual(["fulfilled", "fulfilled", "fulfilled"]);
    },
  );

  itOnPostgres("thousands of calls with one key need only a few statements", async () => {
    const queue = open();
    await queue.connect();
    let statements = 0;
    const { query } = pg.Client.prototype;
    pg.Client.prototype.query = function (this: pg.Client, ...args: unknown[]) {
      statements++;
      return Reflect.apply(query, this, args);
    } as typeof query;
    try {
      const key = "called by all";
      const jobs = await Promise.all(
        Array.from({ length: 5_000 }, (_, n) => queue.enqueue("hello", { n }, { key })),
      );
      expect(jobs.filter((job) => job !== null)).toHaveLength(1);
    } finally {
      pg.Client.prototype.query = query;
    }
    expect(statements).toBeLessThan(10);
  });
});

describe("an enqueue in the caller's transaction", () => {
  itOnPostgres(
    "Q-16: stores the job and notifies at the commit, and does neither after a rollback",
    async () => {
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
      // Notifications arrive in the order of commits. If the insert had notified at once, this marker would arrive after
      // it.
      await database.query(`select pg_notify('saq:${queue.name}', 'marker')`);
      await client.query("commit");
      expect(await queue.job(kept.key)).toMatchObject({ key: kept.key, status: "queued" });
      await until(async () => heard.length >= 2);
      expect(heard).toEqual([`saq:${queue.name} marker`, `saq:${queue.name} saq:enqueue`]);
    },
  );

  itOnPostgres("Q-16, V-5.3: reports a taken key as usual, and the transaction stays usable", async () => {
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
