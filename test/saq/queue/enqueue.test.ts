import { beforeAll, describe, expect, it } from "@jest/globals";
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import { InvalidJobError, InvalidPayloadError } from "../../../templates/backend/saq/errors.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { task } from "../../../templates/backend/saq/tasks/task.js";
import type { StandardSchema } from "../../../templates/backend/saq/tasks/validation.js";
import { pythonComplaints } from "../support/golden-documents.js";
import { openQueue, rowOf, serverSeconds, useDatabase } from "../support/scenario.js";
import { can, expectRefusal, itOnTables, onRedis, possible } from "../support/test-broker.js";

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

/** Accepts an object, or null in place of an empty one, and refuses everything else. */
const anyObject: StandardSchema<{ n?: number } | undefined> = {
  "~standard": {
    version: 1,
    vendor: "test",
    validate: (value) =>
      typeof value === "object" ? { value: value ?? {} } : { issues: [{ message: "expected an object" }] },
  },
};

const tasks = {
  lenient: task({ input: anyObject, run: () => "ok" }),
  hello: (_ctx: unknown, _payload?: object) => "hi",
  patient: task({ timeout: 120, retries: 5, retryDelay: 2, retryBackoff: true, run: () => "done" }),
  checked: task({ input: even, run: (_ctx, { n }) => n }),
};
const open = (options: Parameters<typeof openQueue>[2] = {}) => openQueue(database, tasks, options as object);

// One start creates the tables, so that no test measures that.
beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

const nowSeconds = () => serverSeconds(database);

describe("a stored job", () => {
  it("V-5.1, J-30: has only the required members when only a payload is given", async () => {
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
    const due = onRedis ? 0 : await nowSeconds();
    expect(Math.abs(Number(row?.scheduled) - due)).toBeLessThanOrEqual(1);
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

  it("Q-1, T-3: has every option in its document and in the columns", async () => {
    const queue = open();
    const scheduled = (await nowSeconds()) + 60;
    const placed = possible({ priority: 7, groupKey: "g" });
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
        ...placed,
        meta: { trace: "x" },
      },
    );
    const row = await rowOf(database, "every-option");
    const { priority = 0, groupKey = null } = placed;
    expect(row).toMatchObject({ status: "queued", scheduled, priority, group_key: groupKey });
    expect(JSON.parse(row?.text ?? "")).toMatchObject({
      timeout: null,
      heartbeat: 3,
      retries: 4,
      ttl: -1,
      retry_delay: 1.5,
      retry_backoff: 30,
      scheduled,
      ...(priority === 0 ? {} : { priority }),
      ...(groupKey === null ? {} : { group_key: groupKey }),
      meta: { trace: "x" },
    });
    expect(pythonComplaints(row?.text ?? "", queue.name)).toEqual([]);
    expect(job).toMatchObject({ key: "every-option", scheduled, priority, retries: 4, timeout: null });
  });

  it("S-25: takes each option from the call first, then from the task, then from the queue", async () => {
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
    // J-15: the stored values are the ones that count.
    expect(await queue.job(given.key)).toMatchObject({ timeout: null, retries: 1, ttl: 60, retryDelay: 2 });
  });

  it("Q-2: a delay is counted from now on the database's clock and rounded up to a whole second", async () => {
    const queue = open();
    const before = await nowSeconds();
    const job = await queue.enqueue("hello", {}, { scheduled: inSeconds(30) });
    const { scheduled = 0 } = (await rowOf(database, job.key)) ?? {};
    expect(scheduled).toBeGreaterThanOrEqual(before + 30);
    expect(scheduled).toBeLessThanOrEqual((await nowSeconds()) + 31);
    expect(job.scheduled).toBe(scheduled);
  });

  it("an omitted payload is validated as the worker will validate it", async () => {
    const queue = open();
    const job = await queue.enqueue("lenient");
    expect(job.kwargs).toBeNull();
  });

  it("D-64: texts with NUL, lone surrogates and any other characters are read back unchanged", async () => {
    const queue = open();
    const payload = { text: "\0 \ud800 \udfff é ☃ 😀 \\u0000 \" ' \n", "a\0b": 1 };
    const job = await queue.enqueue("hello", payload);
    expect((await queue.job(job.key))?.kwargs).toEqual(payload);
  });
});

describe("an invalid enqueue", () => {
  it.each<[string, object, string]>([
    ["a NUL in the key", { key: "a\0b" }, "A job's key must not contain a NUL character"],
    ["an empty key", { key: "" }, "A job key must have 1 to 2000 bytes, got 0: "],
    ["a long key", { key: "é".repeat(1_001) }, "A job key must have 1 to 2000 bytes, got 2002: ééé"],
    [
      "half a character in the key",
      { key: "a\ud800" },
      "A job's key must not contain half of a surrogate pair",
    ],
    ["a NUL in the group key", { groupKey: "a\0b" }, "A job's groupKey must not contain a NUL character"],
    ["half a character in the group key", { groupKey: "\udc00" }, "A job's groupKey must not contain half"],
    ["a long group key", { groupKey: "g".repeat(2_001) }, "A job's groupKey must have at most 2000 bytes"],
    [
      "a big priority",
      { priority: 40_000 },
      'enqueue("hello"): priority must be a whole number of -32768 to 32767, got 40000',
    ],
    [
      "a fractional priority",
      { priority: 0.5 },
      'enqueue("hello"): priority must be a whole number of -32768 to 32767, got 0.5',
    ],
    [
      "a negative timeout",
      { timeout: -1 },
      'enqueue("hello"): timeout must be null or seconds >= 0 (0 and null: no limit), got -1',
    ],
    [
      "a heartbeat of NaN",
      { heartbeat: Number.NaN },
      'enqueue("hello"): heartbeat must be seconds >= 0 (0: off), got NaN',
    ],
    [
      "a fractional number of attempts",
      { retries: 1.5 },
      'enqueue("hello"): retries must be a whole number >= 0 of attempts in all, got 1.5',
    ],
    [
      "a fractional ttl",
      { ttl: 0.5 },
      'enqueue("hello"): ttl must be whole seconds (0: keep for ever, -1: delete at once), got 0.5',
    ],
    ["a text as retryDelay", { retryDelay: "1" }, 'enqueue("hello"): retryDelay must be seconds >= 0, got 1'],
    ["a time in milliseconds", { scheduled: 1795303141785 }, "(milliseconds? divide by 1000)"],
    ["a number as key", { key: 5 }, 'enqueue("hello"): key must be a text, got 5'],
    ["a BigInt as key", { key: 5n }, 'enqueue("hello"): key must be a text, got 5'],
    ["a number as group key", { groupKey: 5 }, 'enqueue("hello"): groupKey must be a text or null, got 5'],
    ["a text as meta", { meta: "trace" }, 'enqueue("hello"): meta must be an object, got "trace"'],
    ["a BigInt as meta", { meta: 5n }, 'enqueue("hello"): meta must be an object, got 5'],
    ["null as meta", { meta: null }, 'enqueue("hello"): meta must be an object, got null'],
    [
      "null as scheduled time",
      { scheduled: null },
      "scheduled must be epoch seconds, a Date or inSeconds(n), got null",
    ],
    ["a text as scheduled time", { scheduled: "soon" }, 'a Date or inSeconds(n), got "soon"'],
    ["a delay that is too long", { scheduled: { delaySeconds: 1e300 } }, "got inSeconds(1e+300)"],
  ])("%s is refused with a clear message, and nothing is stored", async (_, options, message) => {
    const queue = open();
    const refused = queue.enqueue("hello", {}, options);
    if (!can("groups") && typeof (options as { groupKey?: unknown }).groupKey === "string")
      return expectRefusal("groups", () => refused);
    await expect(refused).rejects.toThrow(InvalidJobError);
    await expect(refused).rejects.toThrow(message);
    expect(await queue.counts()).toMatchObject({ queued: 0, scheduled: 0 });
  });

  it("a payload that cannot be written as JSON or is not an object is refused", async () => {
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

  it("a meta that cannot be written as JSON is refused, and the error names meta", async () => {
    const queue = open();
    const cycle: Record<string, unknown> = {};
    cycle.self = cycle;
    const refused = (meta: Record<string, unknown>) => queue.enqueue("hello", { n: 1 }, { meta });
    await expect(refused({ n: 1n })).rejects.toThrow(InvalidJobError);
    await expect(refused({ n: 1n })).rejects.toThrow(
      /^The meta of "hello" cannot be written as JSON: .*BigInt/,
    );
    await expect(refused(cycle)).rejects.toThrow(
      /^The meta of "hello" cannot be written as JSON: .*circular/,
    );
  });

  it("D-61: a member that is not an option is refused, for example one of a request body", async () => {
    const queue = open();
    for (const member of [
      "attempts",
      "error",
      "result",
      "status",
      "workerId",
      "progress",
      "queue",
      "retires",
    ]) {
      const options = JSON.parse(`{ "timeout": 5, "${member}": 7 }`);
      await expect(queue.enqueue("hello", {}, options)).rejects.toThrow(
        `enqueue("hello"): there is no option "${member}" (known: key, scheduled, priority, groupKey, meta, client, ` +
          "timeout, heartbeat, retries, ttl, retryDelay, retryBackoff)",
      );
    }
    expect(await queue.count("incomplete")).toBe(0);
  });

  it("a payload or meta of more than maxBytes bytes is refused, even if it has fewer characters", async () => {
    const queue = open({ maxBytes: 30_000 });
    const text = "漢".repeat(9_900);
    expect((await queue.enqueue("hello", { text }, { meta: { text } })).kwargs).toEqual({ text });
    const large = { text: "漢".repeat(10_000) };
    for (const [what, payload, options] of [
      ["payload", large, {}],
      ["meta", {}, { meta: large }],
      ["payload", { ...large, key: 1 }, { key: "large" }],
    ] as const) {
      const bytes = Buffer.byteLength(JSON.stringify(what === "meta" ? large : payload)).toLocaleString(
        "en-US",
      );
      await expect(queue.enqueue("hello", payload, options)).rejects.toThrow(
        `The ${what} of "hello" has ${bytes} bytes as JSON, at most 30,000 can be stored. Store the data elsewhere and ` +
          "pass a reference to it, or raise maxBytes of the queue",
      );
    }
    await expect(open().enqueue("hello", { text: "漢".repeat(5_600_000) })).rejects.toThrow(
      "at most 16,777,216",
    );
    expect(await queue.count("queued")).toBe(1);
  });

  it("a task that the queue does not have is refused", async () => {
    const queue = open() as unknown as Queue;
    await expect(queue.enqueue("helo", {})).rejects.toMatchObject({
      code: "unknown_task",
      message: `Queue "${queue.name}" has no task "helo" (registered: lenient, hello, patient, checked)`,
    });
    await expect(queue.enqueue("constructor", {})).rejects.toMatchObject({ code: "unknown_task" });
  });

  it("a payload that fails the schema is refused with the field's name; the input of the schema is stored", async () => {
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

  itOnTables("invalid data rejects only its own call; the rest of the flush is stored", async () => {
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
