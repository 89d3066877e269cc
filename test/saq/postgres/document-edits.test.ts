/** The engine writes its own values into a job's `meta`, and leaves everything else in it as it is written. */
import { describe, expect, it } from "@jest/globals";
import type { StoredJob } from "../../../templates/backend/saq/core/stored-job.js";
import { loseJob, retryJob } from "../../../templates/backend/saq/core/transitions.js";
import {
  decodeJob,
  editDocument,
  encodeChange,
  fieldsOfChange,
} from "../../../templates/backend/saq/core/wire.js";
import type { Context } from "../../../templates/backend/saq/index.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { insertRow, openQueue, rowOf, startWorker, until, useDatabase } from "../support/scenario.js";

const database = useDatabase();

/** Members that JSON.parse and JSON.stringify would change, as Python writes them. */
const inMeta = '"id": 12345678901234567890, "price": 1.50, "many": [{"n": 98765432109876543210}]';
/** The same members as jsonb writes them: in its own order. */
const inJsonb = /"id": 12345678901234567890,.*"many": \[\{"n": 98765432109876543210\}\], "price": 1.50/;

const document = (queue: string, { task = "wait", meta = inMeta, more = "" } = {}) =>
  `{"function": "${task}", "kwargs": {"n": 1${more}}, "queue": "${queue}", "key": "k", "timeout": 0, "meta": {${meta}}, "status": "queued"}`;

let started = () => {};
const tasks = {
  wait: (ctx: Context) => {
    started();
    return new Promise((resolve) => ctx.signal.addEventListener("abort", resolve));
  },
  fails: () => {
    throw new Error("boom");
  },
};

/** Starts a worker, and waits until it runs the one job of the queue. */
async function runningWorker(queue: Queue<typeof tasks>) {
  const running = new Promise<void>((resolve) => {
    started = resolve;
  });
  const worker = await startWorker(queue);
  await running;
  return worker;
}

describe("a settlement that a worker records", () => {
  it.each([
    ["a document that jsonb can hold", "", inJsonb],
    ["a document that jsonb cannot hold", ', "nul": "\\u0000"', `"meta": {${inMeta}, "cancellations": 1}`],
  ])("D-64: a shutdown is counted in meta and keeps its other values: %s", async (_name, more, stored) => {
    const queue = openQueue(database, tasks);
    await queue.connect();
    await database.query("delete from saq_jobs");
    await insertRow(database, { key: "k", queue: queue.name, document: document(queue.name, { more }) });
    const { worker, ended } = await runningWorker(queue);
    await worker.stop({ grace: 0 });
    expect(await ended("k")).toMatch("Requeued");
    const text = (await rowOf(database, "k"))?.text ?? "";
    expect(text).toMatch(stored);
    expect(JSON.parse(text).meta.cancellations).toBe(1);
    expect(Object.keys(JSON.parse(text))).not.toContain("meta+");
  });

  it.each([
    ["a document that jsonb can hold", ""],
    ["a document that jsonb cannot hold", ', "nul": "\\u0000"'],
  ])(
    "D-64: a failed attempt is added to meta, whose other values keep their text: %s",
    async (_name, more) => {
      const queue = openQueue(database, tasks);
      await queue.connect();
      await database.query("delete from saq_jobs");
      const text = document(queue.name, { task: "fails", more });
      await insertRow(database, { key: "k", queue: queue.name, document: text });
      const { ended } = await startWorker(queue);
      expect(await ended("k")).toBe("Failed fails");
      const stored = (await rowOf(database, "k"))?.text ?? "";
      expect(stored).toMatch(more === "" ? inJsonb : `"meta": {${inMeta}, "attemptHistory": [`);
      expect(Object.keys(JSON.parse(stored))).not.toContain("meta+");
      const error = expect.stringMatching(/^Error: boom\n/);
      expect((await queue.job("k"))?.history).toEqual([expect.objectContaining({ attempt: 1, error })]);
    },
  );

  it("D-21: a shutdown keeps the meta that a caller set during the run", async () => {
    const queue = openQueue(database, tasks);
    const job = await queue.enqueue("wait", undefined, { timeout: 0, meta: { old: 1 } });
    const { worker, ended } = await runningWorker(queue);
    await job.update({ meta: { fresh: 2 } });
    await worker.stop({ grace: 0 });
    expect(await ended(job.key)).toMatch("Requeued");
    expect((await job.refresh()).meta).toEqual({ fresh: 2, cancellations: 1 });
  });

  it("D-41, D-64: a requeue of an unknown task is counted in meta and keeps the other values exactly", async () => {
    const queue = openQueue(database, tasks, { unknownTask: "requeue" });
    await queue.connect();
    await database.query("delete from saq_jobs");
    const text = document(queue.name, { task: "elsewhere" });
    await insertRow(database, { key: "k", queue: queue.name, document: text });
    await startWorker(queue);
    await until(async () => (await rowOf(database, "k"))?.text.includes("unknownTask") === true);
    const stored = (await rowOf(database, "k"))?.text ?? "";
    expect(stored).toMatch(inJsonb);
    expect(JSON.parse(stored).meta.unknownTask).toBe(1);
  });
});

describe("a change that is made while the row is locked", () => {
  const row = (text: string, status: StoredJob["status"]): StoredJob => ({
    key: "k",
    queue: "q",
    status,
    scheduled: 0,
    document: text,
  });
  const changed = (text: string, change: { patch: string | null; removed: readonly string[] }) =>
    editDocument(text, change.patch ?? "{}", change.removed);

  const lost =
    '"attemptHistory": [{"time":5000,"attempt":1,"workerId":null,"duration":0,"error":"worker lost';

  it("D-64: a lost job's count and history in meta are changed, and the rest of meta is copied unchanged", () => {
    const text = document("q", { meta: `${inMeta}, "lost": 1` });
    expect(changed(text, loseJob(row(text, "active"), 5_000, 3, 60))).toContain(
      `"meta": {${inMeta}, "lost": 2, ${lost}"}]}`,
    );
    const last = document("q", { meta: `"lost": 3, ${inMeta}` });
    const failed = changed(last, loseJob(row(last, "active"), 5_000, 3, 60));
    expect(failed).toContain(`"meta": {"lost": 4, ${inMeta}, ${lost}: 4 workers died`);
    expect(failed).toMatch('"status": "failed"');
  });

  it("D-26, D-64: a retry removes the counts from meta, and removes meta if it held nothing else", () => {
    const retried = (meta: string) => {
      const text = document("q", { meta });
      const { change } = retryJob(row(text, "failed"), "again", 5_000, true);
      if (!change) throw new Error("refused");
      return changed(text, change);
    };
    expect(retried(`"lost": 3, ${inMeta}, "cancellations": 2`)).toMatch(`"meta": {${inMeta}}`);
    expect(retried('"lost": 3')).not.toMatch("meta");
    expect(retried(inMeta)).toMatch(`"meta": {${inMeta}}`);
  });
});

describe("marks in meta", () => {
  it.each([
    ['{"a":1}', '{"a": 1, "meta": {"lost": 1}}'],
    ['{"meta":null}', '{"meta": {"lost": 1}}'],
    ['{"meta":[1]}', '{"meta": {"lost": 1}}'],
    ['{"meta":{"meta+":{"x":NaN},"lost":7}}', '{"meta": {"meta+": {"x":NaN}, "lost": 1}}'],
  ])("are set in %s", (text, expected) => {
    const { patch, removed } = encodeChange({}, { lost: 1, gone: null });
    expect(editDocument(text, patch, removed)).toBe(expected);
  });

  it("override the new meta of the same change, and are read back together with it", () => {
    const { patch, removed } = encodeChange({ meta: { own: 1, lost: 9 } }, { lost: 1 });
    const text = '{"function":"f","queue":"q","key":"k","meta":{"old":1}}';
    const edited = decodeJob(editDocument(text, patch, removed), "q", "queued");
    expect(edited.meta).toEqual({ own: 1, lost: 1 });
    expect(fieldsOfChange({ meta: { old: 1 } }, patch, removed).meta).toEqual(edited.meta);
    const marks = encodeChange({}, { lost: null, cancellations: 2 });
    expect(fieldsOfChange({ meta: { lost: 1, x: 1 } }, marks.patch, marks.removed)).toEqual({
      meta: { x: 1, cancellations: 2 },
    });
  });
});
