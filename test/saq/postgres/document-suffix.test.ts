/** Documents that a claim and a completion change only at their end, without parsing them. */

import { beforeAll, describe, expect, it } from "@jest/globals";
import type { ClaimedJob } from "../../../templates/backend/saq/core/claim.js";
import { claimedFields } from "../../../templates/backend/saq/core/stored-job.js";
import { decodeJob } from "../../../templates/backend/saq/core/wire.js";
import type { Context } from "../../../templates/backend/saq/index.js";
import { newReceipt, receiptOf } from "../../../templates/backend/saq/postgres/receipt.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { openProxy } from "../support/cuttable-proxy.js";
import { pythonComplaints } from "../support/golden-documents.js";
import { LogBook } from "../support/log-book.js";
import {
  claim,
  insertRow,
  openQueue,
  rowOf,
  settle,
  settlement,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";

const database = useDatabase();
const tasks = {
  hello: async (_ctx: unknown, payload?: object) => payload,
  step: async (ctx: Context) => {
    await ctx.job.update({ progress: 0.5, meta: { half: true } });
    return "done";
  },
};
type Hello = Queue<typeof tasks>;
const open = (options: object = {}): Hello => openQueue(database, tasks, options);

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});

const textOf = async (key: string) => (await rowOf(database, key))?.text ?? "";

/** The settlement that a worker writes if its claim knows the end of the document. */
const completion = (job: ClaimedJob, result: unknown) =>
  settlement(job, "complete", { progress: 1, completed: 9, touched: 9, result }, { unchanged: true });

async function claimOne(queue: Hello): Promise<ClaimedJob> {
  const [job] = await claim(queue);
  if (!job) throw new Error("nothing was claimed");
  return job;
}

describe("a document that enqueue wrote", () => {
  it.each<[string, object]>([
    ["plain", { a: 1 }],
    ["quotes, backslashes, line ends", { a: 'say "hi" \\ \n\r\t \u2028' }],
    ["beyond ASCII", { a: "héllo ☃ 𝄞", ключ: "значение" }],
    ["an escaped NUL and a lone surrogate", { a: "\0 \ud800" }],
    ["text like the end of the document", { a: ',"status":"queued"}', b: { status: "queued" } }],
    ["a number that jsonb would write differently", { a: 1e21 }],
  ])("is claimed and completed with its other bytes unchanged: %s", async (_name, kwargs) => {
    const queue = open();
    const { key } = await queue.enqueue("hello", kwargs);
    const enqueued = await textOf(key);
    const job = await claimOne(queue);
    expect(job.firstStart).not.toBeNull();
    const opening = enqueued.slice(0, -',"status":"queued"}'.length);
    expect((await textOf(key)).startsWith(opening)).toBe(true);
    // The worker runs the document that is stored.
    expect(job.document).toBe(await textOf(key));
    expect(
      claimedFields({ ...job, document: enqueued }, { queueName: queue.name, workerId: "worker-1" }),
    ).toEqual(decodeJob(await textOf(key), queue.name, "active"));
    expect(JSON.parse(job.document)).toEqual({
      ...JSON.parse(enqueued),
      status: "active",
      attempts: 1,
      started: expect.any(Number),
      touched: expect.any(Number),
      worker_id: "worker-1",
    });
    expect(pythonComplaints(job.document, queue.name)).toEqual([]);
    expect(await settle(queue, completion(job, kwargs))).toBe("applied");
    const ended = await textOf(key);
    expect(ended.startsWith(opening)).toBe(true);
    expect(JSON.parse(ended)).toEqual({
      ...JSON.parse(job.document),
      status: "complete",
      progress: 1,
      completed: 9,
      touched: 9,
      result: kwargs,
    });
    // Each member occurs once.
    expect(Object.keys(JSON.parse(ended)).length).toBe(
      [...ended.matchAll(/"status":"complete"/g)].length + Object.keys(JSON.parse(job.document)).length + 2,
    );
  });

  it.each([
    ["ASCII", "a".repeat(30_000), 1.1],
    ["ASCII with quotes and line ends", 'say "hi" \\ \n\t'.repeat(2_000), 1.5],
    ["Cyrillic", "ключ значение ".repeat(2_000), 1.5],
    ["Chinese", "漢字".repeat(10_000), 1.5],
    ["beyond the basic plane", "😀𝄞".repeat(5_000), 1.5],
  ])("is sent to the worker in less than 1.5 times its size: %s", async (_name, text, most) => {
    const proxy = await openProxy(database);
    const queue = openQueue(proxy, tasks);
    const { key } = await queue.enqueue("hello", { text });
    const bytes = Buffer.byteLength(await textOf(key));
    const before = proxy.bytesSent;
    const job = await claimOne(queue);
    expect(proxy.bytesSent - before).toBeLessThan(most * bytes);
    expect(JSON.parse(job.document)).toMatchObject({ kwargs: { text } });
  });

  it("V-5.6: keeps its due time in the scheduled column through claim and completion", async () => {
    const queue = open();
    const later = Math.floor(Date.now() / 1_000) - 5;
    const { key } = await queue.enqueue("hello", { a: 1 }, { scheduled: later });
    const job = await claimOne(queue);
    expect(job.firstStart).not.toBeNull();
    expect(await rowOf(database, key)).toMatchObject({ status: "active", scheduled: later });
    expect(await settle(queue, completion(job, null))).toBe("applied");
    expect(await rowOf(database, key)).toMatchObject({ status: "complete", scheduled: later });
  });

  it.each<[string, (queue: string, key: string) => string]>([
    [
      "tried before",
      (queue, key) => `{"function":"hello","queue":"${queue}","key":"${key}","attempts":3,"status":"queued"}`,
    ],
    [
      "a time that the column does not say",
      (queue, key) =>
        `{"function":"hello","queue":"${queue}","key":"${key}","scheduled":7,"status":"queued"}`,
    ],
    [
      "a time elsewhere",
      (queue, key) =>
        `{"scheduled":7,"function":"hello","queue":"${queue}","key":"${key}","status":"queued"}`,
    ],
    [
      "changed before its first run, as Python's compact JSON has it",
      (queue, key) =>
        `{"function":"hello","queue":"${queue}","key":"${key}","queued":1700000000000,"touched":1700000000001,"status":"queued"}`,
    ],
    [
      "changed and sorted",
      (queue, key) =>
        `{"function":"hello","key":"${key}","queue":"${queue}","touched":1,"queued":17,"status":"queued"}`,
    ],
    [
      "spaces, as Python writes",
      (queue, key) => `{"function": "hello", "queue": "${queue}", "key": "${key}", "status": "queued"}`,
    ],
    [
      "state in the middle",
      (queue, key) => `{"function":"hello","status":"queued","queue":"${queue}","key":"${key}"}`,
    ],
  ])("a document that another program wrote is parsed as JSON: %s", async (name, document) => {
    const queue = open();
    const key = `foreign ${name}`;
    const text = document(queue.name, key);
    await insertRow(database, { key, queue: queue.name, document: text });
    const job = await claimOne(queue);
    expect(job.firstStart).toBeNull();
    const before = JSON.parse(text);
    expect(await rowOf(database, key)).toMatchObject({ status: "active", scheduled: before.scheduled ?? 0 });
    expect(JSON.parse(await textOf(key))).toMatchObject({ attempts: (before.attempts ?? 0) + 1 });
    expect(await settle(queue, completion(job, 1))).toBe("applied");
    const ended = await textOf(key);
    expect(JSON.parse(ended)).toMatchObject({ status: "complete", result: 1 });
    // Each member occurs once.
    const names = Object.keys(JSON.parse(ended));
    expect(names.map((member) => ended.split(`"${member}":`).length - 1)).toEqual(names.map(() => 1));
  });

  it.each<[string, object, object]>([
    ["with members after the enqueue time", {}, { priority: 5, meta: { a: 1 }, groupKey: null }],
    ["with a due time", {}, { scheduled: Math.floor(Date.now() / 1_000) - 5 }],
    ["with the name of a document member in its payload", { touched: 1 }, {}],
  ])("has a suffix that can be replaced: %s", async (_name, kwargs, options) => {
    const queue = open();
    await queue.enqueue("hello", kwargs, options);
    expect((await claimOne(queue)).firstStart).not.toBeNull();
  });

  it("D-3: a row that ends like our documents but holds no job is set aside as failed; other jobs run", async () => {
    const log = new LogBook();
    const queue = open({ logger: log });
    const poison: Record<string, string | Buffer> = {
      "not JSON": '{"function":hello,"status":"queued"}',
      "not UTF-8": Buffer.concat([
        Buffer.from(`{"function":"hello","queue":"${queue.name}","key":"compact not UTF-8","kwargs":{"a":"`),
        Buffer.from([0xff, 0xfe]),
        Buffer.from('"},"status":"queued"}'),
      ]),
      "a NUL byte": `{"function":"hello\0","queue":"${queue.name}","key":"compact a NUL byte","status":"queued"}`,
      "a NUL byte beyond ASCII": `{"function":"é\0","queue":"${queue.name}","key":"compact a NUL byte beyond ASCII","status":"queued"}`,
      "a byte order mark": `\uFEFF{"function":"hello","queue":"${queue.name}","key":"compact a byte order mark","status":"queued"}`,
      "another key": `{"function":"hello","queue":"${queue.name}","key":"other","status":"queued"}`,
      "another queue": '{"function":"hello","queue":"other","key":"compact another queue","status":"queued"}',
    };
    const good: string[] = [];
    for (const [name, document] of Object.entries(poison)) {
      await insertRow(database, { key: `compact ${name}`, queue: queue.name, document });
      good.push((await queue.enqueue("hello")).key);
    }
    await startWorker(queue);
    await until(async () => (await queue.counts()).queued === 0 && (await queue.counts()).active === 0);
    for (const key of good) expect(await rowOf(database, key)).toMatchObject({ status: "complete" });
    for (const name of Object.keys(poison)) {
      const [row] = await database.query("select status from saq_jobs where key = $1", [`compact ${name}`]);
      expect({ name, ...row }).toEqual({ name, status: "failed" });
    }
  });

  it("D-64: a NaN in a document that ends like ours causes a warning and stays as it is", async () => {
    const queue = open();
    const document = (key: string, kwargs: string) =>
      `{"function":"hello","kwargs":${kwargs},"queue":"${queue.name}","key":"${key}","status":"queued"}`;
    const kwargs = { number: '{"a":NaN}', text: '{"a":"NaN, Infinity"}', broken: '{"a":Infinity,"b":"}' };
    for (const [key, given] of Object.entries(kwargs))
      await insertRow(database, {
        key: `numbers ${key}`,
        queue: queue.name,
        document: document(`numbers ${key}`, given),
      });
    const { log, ended } = await startWorker(queue);
    for (const key of ["number", "text"]) expect(await ended(`numbers ${key}`)).toMatch(/^Finished/);
    const warned = log.lines.filter(({ message }) => message.includes("the task reads null instead"));
    expect(warned.map(({ fields }) => fields.job)).toEqual(["numbers number"]);
    expect(await textOf("numbers number")).toContain('{"a":NaN}');
    expect(JSON.parse((await textOf("numbers number")).replace("NaN", "0"))).toMatchObject({
      result: { a: null },
    });
  });

  it("J-20: a task's own update and its settlement are both stored", async () => {
    const queue = open();
    await startWorker(queue);
    const job = await queue.enqueue("step");
    await until(async () => (await queue.counts()).complete === 1);
    expect(JSON.parse(await textOf(job.key))).toMatchObject({
      status: "complete",
      progress: 1,
      result: "done",
      meta: { half: true },
    });
  });

  it("a settlement is lost and changes nothing when its suffix is no longer in the document", async () => {
    const queue = open();
    await queue.enqueue("hello", { a: 1 });
    const job = await claimOne(queue);
    // Python takes a job over without a new token, but writes the whole document again.
    await database.query(
      `update saq_jobs set job = convert_to(replace(convert_from(job, 'UTF8'), 'worker-1', 'worker-9'), 'UTF8') where key = $1`,
      [job.key],
    );
    const taken = await textOf(job.key);
    expect(await settle(queue, completion(job, 1))).toBe("lost");
    expect(await textOf(job.key)).toBe(taken);
    expect(await rowOf(database, job.key)).toMatchObject({ status: "active" });
  });

  it("D-25: a job that was aborted before its settlement ends as aborted", async () => {
    const queue = open();
    const { key } = await queue.enqueue("hello", { a: 1 });
    const job = await claimOne(queue);
    await queue.abort(key, "changed my mind");
    expect(await settle(queue, completion(job, 1))).toBe("aborted");
    expect(JSON.parse(await textOf(key))).toMatchObject({ status: "aborted", error: "changed my mind" });
  });

  it("a batch with settlements of many claims reports which ones were applied", async () => {
    const queue = open();
    await queue.enqueueMany(Array.from({ length: 30 }, (_, i) => ({ task: "hello", payload: { i } })));
    const jobs = [...(await claim(queue)), ...(await claim(queue)), ...(await claim(queue, { limit: 20 }))];
    expect(new Set(jobs.map((job) => receiptOf(job).token)).size).toBe(3);
    const fifth = jobs[4] as ClaimedJob;
    const stranger = { ...fifth, receipt: newReceipt({ ...receiptOf(fifth), token: 1 }) };
    const ends = [...jobs.slice(0, 4), stranger, ...jobs.slice(5)];
    const answers = await Promise.all(ends.map((job, i) => settle(queue, completion(job, { i }))));
    expect(answers.map((answer, i) => [i, answer]).filter(([, answer]) => answer !== "applied")).toEqual([
      [4, "lost"],
    ]);
    expect(JSON.parse(await textOf(jobs[29]?.key ?? ""))).toMatchObject({
      status: "complete",
      result: { i: 29 },
    });
    expect(await queue.counts()).toMatchObject({ complete: 29, active: 1 });
  });

  it("J-16: each row of a batch is kept for the time that its own settlement says", async () => {
    const queue = open();
    const keeps = [null, 600, 60, 0, 600];
    await queue.enqueueMany(keeps.map((_, i) => ({ task: "hello", payload: { i } })));
    const jobs = await claim(queue);
    const answers = await Promise.all(
      jobs.map((job, i) => settle(queue, { ...completion(job, i), keep: keeps[i] ?? null })),
    );
    expect(answers).toEqual(keeps.map(() => "applied"));
    const rows = await database.query<{ keep: number | null }>(
      "select (expire_at - floor(extract(epoch from now())))::int as keep from saq_jobs where key = any($1) order by key",
      [jobs.map(({ key }) => key)],
    );
    // Some seconds may pass between the statements.
    const late = rows.map(({ keep }, i) => (keep === null ? null : (keeps[i] ?? Number.NaN) - keep));
    expect(late[0]).toBeNull();
    for (const seconds of late.slice(1)) {
      expect(seconds).toBeGreaterThanOrEqual(0);
      expect(seconds).toBeLessThan(30);
    }
  });

  it("when a batch settles two claims of one key, only the current claim is applied", async () => {
    const queue = open();
    const key = "claimed twice";
    const claimed: ClaimedJob[] = [];
    for (const payload of [{ run: 1 }, { run: 2 }]) {
      await queue.enqueue("hello", payload, { key });
      claimed.push(await claimOne(queue));
      // Somebody else ends the first job, so that its key is free again.
      if (claimed.length === 1)
        await database.query("update saq_jobs set status = 'aborted' where key = $1", [key]);
    }
    expect(claimed.map(({ firstStart }) => firstStart !== null)).toEqual([true, true]);
    const answers = await Promise.all(claimed.map((job, i) => settle(queue, completion(job, i))));
    expect(answers).toEqual(["lost", "applied"]);
    expect(JSON.parse(await textOf(key))).toMatchObject({ status: "complete", result: 1 });
  });

  it("D-64: jobs with special characters in their keys are settled by their exact keys", async () => {
    const queue = open();
    const keys = ['5 a"b', "5 a\\b", "5", " 5 ", "ключ\n😀", "\u001e"];
    for (const key of keys) await queue.enqueue("hello", { key }, { key });
    const jobs = await claim(queue);
    expect(jobs.map((job) => job.key).sort()).toEqual([...keys].sort());
    const answers = await Promise.all(jobs.map((job) => settle(queue, completion(job, job.key))));
    expect(answers).toEqual(keys.map(() => "applied"));
    for (const key of keys)
      expect(JSON.parse(await textOf(key))).toMatchObject({ status: "complete", result: key, key });
  });

  it("a row that another transaction holds does not delay the other rows of its batch", async () => {
    const queue = open();
    await queue.enqueueMany([1, 2, 3].map((i) => ({ task: "hello", payload: { i } })));
    const jobs = await claim(queue);
    const holder = await database.connect();
    await holder.query("begin");
    await holder.query("select 1 from saq_jobs where key = $1 for update", [jobs[1]?.key]);
    const ends = jobs.map((job, i) => settle(queue, completion(job, i)));
    expect([await ends[0], await ends[2]]).toEqual(["applied", "applied"]);
    expect(await rowOf(database, jobs[1]?.key ?? "")).toMatchObject({ status: "active" });
    await holder.query("commit");
    expect(await ends[1]).toBe("applied");
  });
});
