/** Claims of rows whose documents are no jobs or cannot be held by SQL, and claims whose response is lost. */
import { beforeAll, describe, expect, it } from "@jest/globals";
import { decodeJob } from "../../../templates/backend/saq/core/wire.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { openProxy } from "../support/cuttable-proxy.js";
import { LogBook } from "../support/log-book.js";
import {
  claim,
  holdsNothing,
  insertRow,
  openQueue,
  rowOf,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };
type Hello = Queue<typeof tasks>;
const open = (options: object = {}): Hello => openQueue(database, tasks, options);

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

const keysOf = (jobs: readonly { key: string }[]) => jobs.map(({ key }) => key);

describe("rows that hold no job", () => {
  const poison = (queue: string): Record<string, string | Buffer> => ({
    empty: "",
    "not JSON": '{"function": "hello"',
    "not UTF-8": Buffer.concat([
      Buffer.from(`{"function": "hello", "queue": "${queue}", "key": "poison-not UTF-8", "kwargs": {"a": "`),
      Buffer.from([0xff, 0xfe]),
      Buffer.from('"}}'),
    ]),
    "a byte order mark": `\uFEFF{"function": "hello", "queue": "${queue}", "key": "poison-a byte order mark"}`,
    "an array": "[1, 2]",
    "a text": '"hello"',
    null: "null",
    "no function": `{"queue": "${queue}", "key": "poison-no function"}`,
    "a function that is a number": `{"function": 1, "queue": "${queue}", "key": "poison-a function that is a number"}`,
    "no key": `{"function": "hello", "queue": "${queue}"}`,
    "another key": `{"function": "hello", "queue": "${queue}", "key": "other"}`,
    "another queue": '{"function": "hello", "queue": "other", "key": "poison-another queue"}',
    "NaN and no function": `{"kwargs": NaN, "queue": "${queue}", "key": "poison-NaN and no function"}`,
  });

  it("D-3: are set aside as failed with their bytes unchanged, and the jobs between them are claimed", async () => {
    const log = new LogBook();
    const queue = open({ logger: log });
    const bad = poison(queue.name);
    const good: string[] = [];
    for (const [name, document] of Object.entries(bad)) {
      await insertRow(database, { key: `poison-${name}`, queue: queue.name, document });
      good.push((await queue.enqueue("hello")).key);
    }
    expect(keysOf(await claim(queue, { limit: 100 }))).toEqual(good);
    for (const [name, document] of Object.entries(bad)) {
      const [row] = await database.query("select status, expire_at, job from saq_jobs where key = $1", [
        `poison-${name}`,
      ]);
      expect({ name, ...row }).toEqual({
        name,
        status: "failed",
        expire_at: null,
        job: Buffer.from(document as string),
      });
    }
    expect(
      log.lines
        .filter(({ level }) => level === "error")
        .flatMap(({ fields }) => fields.jobs)
        .toSorted(),
    ).toEqual(
      Object.keys(bad)
        .map((name) => `poison-${name}`)
        .toSorted(),
    );
    expect(await claim(queue)).toEqual([]);
    // D-3: reading such rows is as tolerant as claiming them.
    expect(await queue.list({ statuses: ["failed"] })).toHaveLength(Object.keys(bad).length);
    expect(await queue.job("poison-empty")).toMatchObject({ function: "(unreadable)", status: "failed" });
    expect(await queue.abort("poison-empty")).toBe("not_active");
    expect(await queue.retry("poison-empty")).toBe("unreadable");
  });

  it.each([
    ["not JSON", "{"],
    ["not JSON but end like our documents", '{"function":hello,"status":"queued"}'],
  ])(
    "D-3: a worker runs a job behind 2,000 rows that are %s without waiting for its next poll",
    async (_, document) => {
      const log = new LogBook();
      // The next look comes an hour later. So the worker finds the job behind the rows only if it claims again at once.
      const queue = open({ logger: log, timers: { schedule: 3_600 } });
      await queue.connect();
      await database.query(
        `insert into saq_jobs (key, queue, job, status, scheduled) select $1 || n, $1, convert_to($2, 'UTF8'), 'queued', 0
       from generate_series(1, 2000) n`,
        [queue.name, document],
      );
      const { key } = await queue.enqueue("hello");
      const { ended } = await startWorker(queue);
      expect(await ended(key)).toBe("Finished hello");
      await until(async () => (await queue.counts()).failed === 2_000);
    },
  );

  it("D-3: an active row that holds no job is set aside as failed when it is aborted", async () => {
    const queue = open();
    await insertRow(database, { key: "poison-active", queue: queue.name, document: "{", status: "active" });
    expect(await queue.abort("poison-active")).toBe("aborted");
    expect(await rowOf(database, "poison-active")).toMatchObject({ status: "failed", text: "{" });
  });
});

describe("documents with unusual values", () => {
  it.each([
    ["NaN", '{"a": NaN, "big": 12345678901234567890}'],
    ["an escaped NUL", '{"a": "\\u0000", "big": 12345678901234567890}'],
    ["half a character", '{"a": "\\ud800", "one": 1.0}'],
    ["an array 20,000 deep", `{"a": ${"[".repeat(20_000)}${"]".repeat(20_000)}}`],
  ])("D-64: a claim keeps %s in the payload as it is written", async (name, kwargs) => {
    const queue = open();
    const key = `wire-${name}`;
    const document = `{"function": "hello", "kwargs": ${kwargs}, "queue": "${queue.name}", "key": "${key}", "attempts": 1, "queued": 5, "status": "queued"}`;
    await insertRow(database, { key, queue: queue.name, document });
    const [claimed] = await claim(queue);
    expect(claimed?.document).toContain(`"kwargs": ${kwargs},`);
    expect(decodeJob(claimed?.document ?? "", queue.name, "active")).toMatchObject({
      attempts: 2,
      workerId: "worker-1",
    });
    expect(await rowOf(database, key)).toMatchObject({ status: "active", text: claimed?.document });
  });

  it("D-64: a number NaN or Infinity causes a warning with the job's key; the word in a string does not", async () => {
    const queue = open();
    const payloads = {
      number: '{"a": NaN}',
      infinite: '{"a": [-Infinity]}',
      text: '{"a": "NaN, Infinity", "b": "\\u0000"}',
    };
    for (const [key, kwargs] of Object.entries(payloads)) {
      const document = `{"function": "hello", "kwargs": ${kwargs}, "queue": "${queue.name}", "key": "${key}"}`;
      await insertRow(database, { key, queue: queue.name, document });
    }
    const { log, ended } = await startWorker(queue);
    for (const key of Object.keys(payloads)) expect(await ended(key)).toMatch(/^Finished/);
    const warned = log.lines.filter(({ level, message }) => level === "warn" && message.includes("NaN"));
    expect(warned.map(({ fields }) => fields.job).sort()).toEqual(["infinite", "number"]);
  });

  it("D-64: integers beyond 2^53 keep every digit", async () => {
    const queue = open();
    const document = `{"function": "hello", "kwargs": {"big": 12345678901234567890}, "queue": "${queue.name}", "key": "big"}`;
    await insertRow(database, { key: "big", queue: queue.name, document });
    const [claimed] = await claim(queue);
    expect(claimed?.document).toContain("12345678901234567890");
  });

  it.each([
    ["attempts", '"x"'],
    ["attempts", "1e30"],
    ["attempts", "null"],
    ["scheduled", "1e30"],
    ["scheduled", '"soon"'],
    ["scheduled", "null"],
    ["scheduled", "-5"],
    ["scheduled", "1000.5"],
  ])("D-3: a job whose field %s is %s is claimed together with the other jobs", async (field, value) => {
    const queue = open();
    const key = `odd-${field}-${value}`;
    const document = `{"function": "hello", "queue": "${queue.name}", "key": ${JSON.stringify(key)}, "${field}": ${value}}`;
    await insertRow(database, { key, queue: queue.name, document });
    const good = await queue.enqueue("hello");
    expect(keysOf(await claim(queue))).toEqual([key, good.key]);
  });
});

describe("a claim whose response is lost", () => {
  it.each([
    ["ungrouped", {}],
    ["grouped", { groupKey: "g" }],
  ])("is undone, and its attempt is not counted (%s)", async (kind, options) => {
    const proxy = await openProxy(database);
    const queue = openQueue(proxy, tasks);
    const job = await queue.enqueue("hello", { n: 1 }, options);
    const swallowed = proxy.mute();
    const lost = claim(queue, { grouped: kind === "grouped" }).catch((error: Error) => error);
    await swallowed;
    if (kind === "ungrouped") expect((await rowOf(database, job.key))?.status).toBe("active");
    proxy.cut();
    expect(await lost).toBeInstanceOf(Error);
    await until(async () => {
      await queue.broker.reconcile(holdsNothing).catch(() => []);
      return (await rowOf(database, job.key))?.status === "queued";
    });
    const [again] = await claim(queue, { grouped: kind === "grouped" });
    expect(decodeJob(again?.document ?? "", queue.name, "active").attempts).toBe(1);
  });
});
