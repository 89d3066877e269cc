/** The SQL function `saq_enqueue` stores jobs as the engine's own enqueue does. */
import { readFile } from "node:fs/promises";
import { beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import { inSeconds } from "../../../templates/backend/saq/index.js";
import { ensureSchema } from "../../../templates/backend/saq/postgres/schema/schema.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import type { EnqueueOptions } from "../../../templates/backend/saq/tasks/task.js";
import { makeRole } from "../support/dml-role.js";
import { pythonComplaints } from "../support/golden-documents.js";
import {
  claim,
  insertRow,
  openQueue,
  rowOf,
  settle,
  settlement,
  startWorker,
  useDatabase,
} from "../support/scenario.js";

const database = useDatabase();
const tasks = {
  hello: (_ctx: unknown, payload?: object) => payload,
  sendReceipt: (_ctx: unknown, payload: { order: number }) => payload.order,
};
type Hello = Queue<typeof tasks>;
let queue: Hello;

beforeAll(async () => {
  const first = openQueue(database, tasks);
  await first.connect();
  await first.close();
});
beforeEach(async () => {
  queue = openQueue(database, tasks);
  await queue.connect();
});
async function enqueue(options: object = {}, kwargs: object | null = { n: 1 }, name = queue.name) {
  const [row] = await database.query<{ key: string | null }>(
    "select saq_enqueue($1, 'hello', $2, $3) as key",
    [name, kwargs && JSON.stringify(kwargs), JSON.stringify(options)],
  );
  return row?.key ?? null;
}

const documentOf = async (key: string) => JSON.parse((await rowOf(database, key))?.text ?? "null");

describe("a job that saq_enqueue stores", () => {
  const due = 2_000_000_000;
  it.each<[object, EnqueueOptions]>([
    [{}, {}],
    [
      { timeout: 30, heartbeat: 5, retries: 4, ttl: -1, retry_delay: 1.5, retry_backoff: true, priority: -7 },
      { timeout: 30, heartbeat: 5, retries: 4, ttl: -1, retryDelay: 1.5, retryBackoff: true, priority: -7 },
    ],
    [
      { timeout: null, retry_backoff: 60, scheduled: due + 0.5, group_key: "é ☃", meta: { a: [1, null] } },
      { timeout: null, retryBackoff: 60, scheduled: due + 0.5, groupKey: "é ☃", meta: { a: [1, null] } },
    ],
    // A member that equals its default is left out, however its value is written (J-4).
    [
      {
        timeout: 10.0,
        heartbeat: 0,
        retries: 1,
        ttl: 600,
        retry_delay: 0,
        retry_backoff: false,
        priority: 0,
        meta: {},
      },
      {
        timeout: 10,
        heartbeat: 0,
        retries: 1,
        ttl: 600,
        retryDelay: 0,
        retryBackoff: false,
        priority: 0,
        meta: {},
      },
    ],
    [
      { retry_backoff: 0, meta: null, group_key: null, scheduled: 0, delay: undefined },
      { retryBackoff: 0, scheduled: 0 },
    ],
    [
      { group_key: "", timeout: 0 },
      { groupKey: "", timeout: 0 },
    ],
  ])("J-4: equals the job that queue.enqueue stores, with options %j", async (options, same) => {
    const kwargs = { text: "héllo ☃ \u{1f600}", list: [1.5, true, null, { deep: {} }], "": "" };
    const job = await queue.enqueue("hello", kwargs, same);
    const key = (await enqueue(options, kwargs)) ?? "";
    const [ours, sqls] = [await rowOf(database, job?.key ?? ""), await rowOf(database, key)];
    const { key: _1, queued: ourQueued, ...ourDocument } = JSON.parse(ours?.text ?? "");
    const { key: inside, queued, ...document } = JSON.parse(sqls?.text ?? "");
    expect(document).toEqual(ourDocument);
    expect(inside).toBe(key);
    expect(Math.abs(queued - ourQueued)).toBeLessThan(5_000);
    expect(Number.isInteger(queued)).toBe(true);
    for (const column of ["queue", "status", "priority", "group_key", "expire_at"])
      expect([column, sqls?.[column]]).toEqual([column, ours?.[column]]);
    expect(Math.abs((sqls?.scheduled ?? 0) - (ours?.scheduled ?? 0))).toBeLessThan(5);
    expect(pythonComplaints(sqls?.text ?? "", queue.name)).toEqual([]);
  });

  it("J-7: has a generated key that is a UUID of version 7 and sorts by time", async () => {
    const [first, , second] = [
      await enqueue(),
      await new Promise((resolve) => setTimeout(resolve, 5)),
      await enqueue(),
    ];
    expect(first).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(String(second) > String(first)).toBe(true);
    expect(Number.parseInt(String(first).replaceAll("-", "").slice(0, 12), 16)).toBeGreaterThan(
      Date.now() - 60_000,
    );
  });

  it("D-64: keeps every digit of the numbers in its payload", async () => {
    const digits =
      '{"big": 123456789012345678901234567890, "fine": 0.1000000000000000055511151231257827021181583404541015625}';
    const [row] = await database.query<{ key: string }>("select saq_enqueue($1, 'hello', $2) as key", [
      queue.name,
      digits,
    ]);
    const { text = "" } = (await rowOf(database, row?.key ?? "")) ?? {};
    expect(text).toContain("123456789012345678901234567890");
    expect(text).toContain("0.1000000000000000055511151231257827021181583404541015625");
  });

  it("runs when the call uses named arguments and omits kwargs", async () => {
    const { ended } = await startWorker(queue);
    const [row] = await database.query<{ key: string }>(
      "select saq_enqueue(queue => $1, function => 'hello', options => '{\"retries\": 3}') as key",
      [queue.name],
    );
    expect(await ended(row?.key ?? "")).toMatch(/^Finished/);
    expect(await documentOf(row?.key ?? "")).toMatchObject({ status: "complete", retries: 3, attempts: 1 });
  });

  it("is due after its delay from now, rounded up to whole seconds; delay 0 means due now", async () => {
    const [{ now } = { now: 0 }] = await database.query<{ now: number }>(
      "select extract(epoch from now())::float8 as now",
    );
    const key = (await enqueue({ delay: 90.2 })) ?? "";
    const { scheduled } = await documentOf(key);
    expect(scheduled).toBeGreaterThanOrEqual(now + 90.2);
    expect(scheduled).toBeLessThan(now + 95);
    expect((await rowOf(database, key))?.scheduled).toBe(scheduled);
    expect(await documentOf((await enqueue({ delay: 0 })) ?? "")).not.toHaveProperty("scheduled");
    const ours = await queue.enqueue("hello", {}, { scheduled: inSeconds(90.2) });
    expect(Math.abs((ours?.scheduled ?? 0) - scheduled)).toBeLessThan(5);
  });
});

describe("a key that the caller chooses", () => {
  it("V-5.3: is refused with null while its job is waiting or running", async () => {
    expect(await enqueue({ key: "k1" })).toBe("k1");
    expect(await enqueue({ key: "k1", scheduled: 2_000_000_000 })).toBeNull();
    const [job] = await claim(queue);
    expect(await enqueue({ key: "k1", scheduled: 2_000_000_000 })).toBeNull();
    expect(await queue.enqueue("hello", {}, { key: "k1" })).toBeNull();
    expect(job?.key).toBe("k1");
  });

  it("V-5.2: is accepted again when its job has ended and the new job is due later than the ended one", async () => {
    await enqueue({ key: "k2", meta: { first: true } });
    const [job] = await claim(queue);
    if (!job) throw new Error("nothing was claimed");
    await settle(queue, settlement(job, "complete", { result: 1 }));
    expect(await enqueue({ key: "k2", retries: 2 })).toBe("k2");
    expect(await documentOf("k2")).toEqual({
      function: "hello",
      kwargs: { n: 1 },
      queue: queue.name,
      key: "k2",
      retries: 2,
      queued: expect.any(Number),
      status: "queued",
    });
    expect(await rowOf(database, "k2")).toMatchObject({ status: "queued", expire_at: null });
    const document = JSON.stringify({ function: "hello", queue: queue.name, key: "k3", status: "aborted" });
    await insertRow(database, {
      key: "k3",
      queue: queue.name,
      document,
      status: "aborted",
      scheduled: 2_000_000_000,
    });
    expect(await enqueue({ key: "k3" })).toBeNull();
    expect(await enqueue({ key: "k3", scheduled: 2_000_000_001 })).toBe("k3");
  });

  it.each(["queued", "active", "complete"])(
    "D-14: is refused while a job of another queue has it with status %s; that job stays in its queue",
    async (status) => {
      const key = `others ${status}`;
      const document = JSON.stringify({ function: "hello", queue: "other", key, status });
      await insertRow(database, { key, queue: "other", document, status, scheduled: 0 });
      expect(await enqueue({ key })).toBeNull();
      expect(await rowOf(database, key)).toMatchObject({ queue: "other", status });
    },
  );

  it("D-13: uses up no number of the sequence when it is refused", async () => {
    await enqueue({ key: "k5" });
    const last = () => database.query("select last_value from saq_jobs_lock_key_seq");
    const before = await last();
    for (let n = 0; n < 5; n++) expect(await enqueue({ key: "k5" })).toBeNull();
    expect(await last()).toEqual(before);
  });
});

describe("invalid or hostile input", () => {
  it.each<[string, string]>([
    [
      `'q', 'f', null, '{"retires": 3}'`,
      'there is no option "retires" (known: key, timeout, heartbeat, retries, ttl, retry_delay, retry_backoff, scheduled, delay, priority, group_key, meta)',
    ],
    [`'q', 'f', null, '{"status": "active"}'`, 'there is no option "status"'],
    [
      `'q', 'f', null, '{"retries": "3"}'`,
      'option retries must be a whole number >= 0 of attempts in all, got "3"',
    ],
    [
      `'q', 'f', null, '{"retries": 1.5}'`,
      "option retries must be a whole number >= 0 of attempts in all, got 1.5",
    ],
    [
      `'q', 'f', null, '{"retries": null}'`,
      "option retries must be a whole number >= 0 of attempts in all, got null",
    ],
    [
      `'q', 'f', null, '{"timeout": -1}'`,
      "option timeout must be null or seconds >= 0 (0 and null: no limit), got -1",
    ],
    [`'q', 'f', null, '{"timeout": 1e400}'`, "option timeout must be null or seconds >= 0"],
    [`'q', 'f', null, '{"heartbeat": true}'`, "option heartbeat must be seconds >= 0, got true"],
    [
      `'q', 'f', null, '{"ttl": 1.5}'`,
      "option ttl must be whole seconds (0: keep for ever, -1: delete at once), got 1.5",
    ],
    [
      `'q', 'f', null, '{"retry_backoff": "yes"}'`,
      'option retry_backoff must be true, false or a cap in seconds, got "yes"',
    ],
    [
      `'q', 'f', null, '{"priority": 32768}'`,
      "option priority must be a whole number of -32768 to 32767, got 32768",
    ],
    [
      `'q', 'f', null, '{"scheduled": 1795303141000}'`,
      "option scheduled must be epoch seconds (milliseconds? divide by 1000), got 1795303141000",
    ],
    [`'q', 'f', null, '{"scheduled": "tomorrow"}'`, 'option scheduled must be epoch seconds, got "tomorrow"'],
    [`'q', 'f', null, '{"delay": -1}'`, "option delay must be seconds >= 0 from now, got -1"],
    [
      `'q', 'f', null, '{"delay": 1, "scheduled": 2}'`,
      "options has both delay and scheduled, one of them is allowed",
    ],
    [`'q', 'f', null, '{"key": ""}'`, 'option key must be a text of 1 to 2000 bytes, got ""'],
    [`'q', 'f', null, '{"key": null}'`, "option key must be a text of 1 to 2000 bytes, got null"],
    [
      `'q', 'f', null, '{"group_key": 7}'`,
      "option group_key must be a text of at most 2000 bytes, or null, got 7",
    ],
    [`'q', 'f', null, '{"meta": [1]}'`, "option meta must be an object, got [1]"],
    [`'q', 'f', null, '[]'`, "options must be an object, got []"],
    [`'q', 'f', null, null`, "options must be an object, got null"],
    [`'q', 'f', '[1]'`, 'kwargs must be an object of named values or null, got [1]; wrap it: {"value": ...}'],
    [`'', 'f'`, "queue must be a text of 1 to 59 bytes, got ''"],
    [`repeat('q', 60), 'f'`, "queue must be a text of 1 to 59 bytes"],
    [`null, 'f'`, "queue must be a text of 1 to 59 bytes, got null"],
    [`'q', null`, "function must be the name of a task, got null"],
  ])("D-76: saq_enqueue(%s) fails; its error names the value and what is allowed", async (given, message) => {
    const before = await database.query("select count(*) from saq_jobs");
    await expect(database.query(`select saq_enqueue(${given})`)).rejects.toMatchObject({
      code: "22023",
      message: expect.stringContaining(`saq_enqueue: ${message}`),
    });
    expect(await database.query("select count(*) from saq_jobs")).toEqual(before);
  });

  it("text in arguments never runs as SQL", async () => {
    const evil = `'); drop table saq_jobs; --`;
    const [row] = await database.query<{ key: string }>("select saq_enqueue($1, $2, $3, $4) as key", [
      queue.name,
      evil,
      JSON.stringify({ [evil]: evil }),
      JSON.stringify({ key: evil, group_key: evil, meta: { [evil]: evil } }),
    ]);
    expect(row?.key).toBe(evil);
    expect(await documentOf(evil)).toMatchObject({
      function: evil,
      kwargs: { [evil]: evil },
      group_key: evil,
    });
  });

  it("objects in the caller's search path are never used", async () => {
    const caller = await database.connect();
    await caller.query(`create schema trap;
      create table trap.saq_jobs (like public.saq_jobs);
      create function trap.pg_notify(text, text) returns void language sql as $$ select 1 / 0 $$;
      set search_path = trap, pg_catalog, public`);
    const { rows } = await caller.query("select public.saq_enqueue($1, 'hello') as key", [queue.name]);
    expect((await rowOf(database, rows[0].key))?.status).toBe("queued");
    await database.query("drop schema trap cascade");
  });
});

describe("notifications and transactions", () => {
  it("P-11, P-21: saq_enqueue notifies only for a job that is stored and due within 10 s", async () => {
    const listener = await database.connect();
    const heard: string[] = [];
    listener.on("notification", ({ payload = "" }) => heard.push(payload));
    await listener.query(`listen "saq:${queue.name}"; listen done`);
    const seen = async () => {
      const done = new Promise<void>((resolve) =>
        listener.on("notification", ({ payload }) => payload === "done" && resolve()),
      );
      await database.query("select pg_notify('done', 'done')");
      await done;
      return heard.splice(0);
    };
    await enqueue({ key: "n1" });
    expect(await seen()).toEqual(["saq:enqueue", "done"]);
    await enqueue({ delay: 8 });
    expect(await seen()).toEqual(["saq:enqueue", "done"]);
    await enqueue({ key: "n1" });
    await enqueue({ delay: 50 });
    expect(await seen()).toEqual(["done"]);
  });

  it("saq_enqueue stores its job when the transaction commits, and nothing when it is rolled back", async () => {
    const caller = await database.connect();
    await caller.query("begin");
    await caller.query("select saq_enqueue($1, 'hello', null, '{\"key\": \"t1\"}')", [queue.name]);
    await caller.query("rollback");
    expect(await rowOf(database, "t1")).toBeUndefined();
    await caller.query("begin");
    await caller.query("select saq_enqueue($1, 'hello', null, '{\"key\": \"t1\"}')", [queue.name]);
    expect(await rowOf(database, "t1")).toBeUndefined();
    await caller.query("commit");
    expect((await rowOf(database, "t1"))?.status).toBe("queued");
  });

  it("the guide's trigger enqueues a job for each row that is inserted", async () => {
    const guide = await readFile(new URL("../../../templates/docs/guide.md", import.meta.url), "utf8");
    const [, example = ""] = /```sql\n(create function [^`]*?create trigger[^`]*?)```/s.exec(guide) ?? [];
    expect(example).toContain("saq_enqueue('default', 'sendReceipt'");
    await database.query("create table orders (id int primary key, customer text)");
    await database.query(example);
    const own = openQueue(database, tasks, { name: "default" });
    const { ended } = await startWorker(own);
    await database.query("insert into orders values (7, 'ann'), (8, 'bob')");
    for (const id of [7, 8]) {
      await ended(`receipt:${id}`);
      expect(await documentOf(`receipt:${id}`)).toMatchObject({
        kwargs: { order: id },
        result: id,
        status: "complete",
      });
    }
  });
});

describe("the function saq_enqueue", () => {
  it("is replaced when it is older, and kept when it is newer or was not made by the engine", async () => {
    const source = async () =>
      (
        await database.query<{ text: string }>(
          "select prosrc as text from pg_proc where proname = 'saq_enqueue'",
        )
      )[0]?.text;
    const put = (body: string) =>
      database.query(`create or replace function saq_enqueue(queue text, function text, kwargs jsonb default null,
        options jsonb default '{}') returns text language plpgsql as $$${body}$$`);
    const current = await source();
    expect(current).toMatch(/^-- saq_enqueue \d+\n/);
    for (const [body, isReplaced] of [
      ["-- saq_enqueue 0\nbegin return null; end", true],
      ["-- saq_enqueue 999\nbegin return null; end", false],
      ["begin return 'mine'; end", false],
    ] as const) {
      await put(body);
      await openQueue(database, tasks).connect();
      expect(await source()).toBe(isReplaced ? current : body);
    }
    await database.query("drop function saq_enqueue");
    await openQueue(database, tasks).connect();
    expect(await source()).toBe(current);
  });

  it("is created once when ten clients start at the same time", async () => {
    await database.query("drop function saq_enqueue");
    const clients = await Promise.all(Array.from({ length: 10 }, () => database.connect()));
    await Promise.all(clients.map((client) => ensureSchema(client)));
    expect(
      await database.query("select count(*)::int as n from pg_proc where proname = 'saq_enqueue'"),
    ).toEqual([{ n: 1 }]);
  });

  it("is not needed when the role may not create it, and runs with the rights of its caller", async () => {
    await database.query("drop function saq_enqueue");
    const { url, name: role } = await makeRole(database);
    const own = openQueue({ url }, tasks);
    const { ended } = await startWorker(own);
    const job = await own.enqueue("hello", { n: 1 });
    await ended(job.key);
    expect(await database.query("select 1 from pg_proc where proname = 'saq_enqueue'")).toEqual([]);
    // The function runs with the rights of its caller, not with the rights of its owner.
    await openQueue(database, tasks).connect();
    const caller = await database.connect();
    await caller.query(`set role ${role}`);
    expect((await caller.query("select saq_enqueue($1, 'hello') as key", [own.name])).rows[0].key).toEqual(
      expect.any(String),
    );
    await caller.query("reset role");
    await database.query(`revoke insert on saq_jobs from ${role}`);
    await caller.query(`set role ${role}`);
    await expect(caller.query("select saq_enqueue($1, 'hello')", [own.name])).rejects.toThrow(
      "permission denied for table saq_jobs",
    );
  });

  it("D-12: is a separate function for another set of tables", async () => {
    const tables = { jobs: "it's_jobs", stats: "m_stats", versions: "m_versions" };
    const own = openQueue(database, tasks, { tables });
    const { ended } = await startWorker(own);
    const [row] = await database.query<{ key: string }>(`select "it's_jobs_enqueue"($1, 'hello') as key`, [
      own.name,
    ]);
    await ended(row?.key ?? "");
    expect((await own.job(row?.key ?? ""))?.status).toBe("complete");
    expect(await rowOf(database, row?.key ?? "")).toBeUndefined();
  });
});
