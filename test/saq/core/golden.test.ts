/**
 * The same jobs go through the same states in both engines and leave the same rows (J-41, T-190). Python's rows are
 * recorded; a trigger records ours each time a row is written.
 */
import { beforeAll, describe, expect, it } from "@jest/globals";
import type { Context } from "../../../templates/backend/saq/index.js";
import {
  documentIn,
  type Golden,
  goldenDocuments,
  oddDocuments,
  pythonComplaints,
} from "../support/golden-documents.js";
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

type Row = Omit<Golden, "clause" | "odd">;

/**
 * Replaces each value that differs from run to run by a word for its kind. Leaves out the history of failed attempts,
 * which Python does not store.
 */
function comparable({ status, priority, groupKey, scheduled, document }: Row) {
  const members = JSON.parse(document) as Record<string, unknown>;
  const { attemptHistory: _, ...meta } = (members.meta ?? {}) as Record<string, unknown>;
  if (Object.keys(meta).length > 0) members.meta = meta;
  else delete members.meta;
  for (const name of ["queued", "started", "touched", "completed", "scheduled"]) {
    if (Number(members[name]) > 1e9) members[name] = "a time";
  }
  if (typeof members.worker_id === "string") members.worker_id = "a worker";
  if (/^(Traceback|Error|boom)/.test(String(members.error))) members.error = "what was thrown";
  members.queue = "the queue";
  return { status, priority, groupKey, scheduled: scheduled > 1e9 ? "a time" : scheduled, members };
}

const recorded = (clause: string): Golden => {
  const found = goldenDocuments.find((golden) => golden.clause === clause);
  if (!found) throw new Error(`nothing recorded as ${clause}`);
  return found;
};

describe("jobs that go through the same states as in Python", () => {
  const lives: Record<string, Row[]> = {};
  let queueName = "";

  /** Returns for how many seconds a finished row is kept after its end; null = for ever. */
  const keptFor = ({ document, expireAt }: Row) =>
    expireAt &&
    expireAt - Math.floor(Number((JSON.parse(document) as { completed: number }).completed) / 1000);

  beforeAll(async () => {
    let abortable = () => {};
    const runs = new Promise<void>((resolve) => {
      abortable = resolve;
    });
    const queue = openQueue(database, {
      ok: async (ctx: Context, _payload: { a: number | string }) => {
        if (ctx.job.attempts === 2) return { x: 1 };
        await ctx.job.update({ progress: 0.5, meta: { step: 2 } });
        throw new Error("boom");
      },
      bad: () => {
        throw new Error("oops");
      },
      wait: (ctx: Context) => {
        abortable();
        return new Promise((resolve) => ctx.signal.addEventListener("abort", resolve));
      },
    });
    queueName = queue.name;
    await queue.connect();
    await database.query(
      `create table history as select nextval('saq_jobs_lock_key_seq') as nth, j.* from saq_jobs j`,
    );
    await database.query(`create function remember() returns trigger language plpgsql as $$ begin
      insert into history select nextval('saq_jobs_lock_key_seq'), new.*; return new; end $$`);
    await database.query(
      "create trigger remember after insert or update on saq_jobs for each row execute function remember()",
    );

    await queue.enqueue("ok", { a: "héllo ☃" }, { key: "k2", scheduled: 1, priority: 3, groupKey: "g" });
    await queue.abort("k2", "nope");
    await queue.enqueue("ok", { a: 1 }, { key: "k1", retries: 2, timeout: 30 });
    await queue.enqueue("bad", undefined, { key: "k5", retries: 3, retryDelay: 60 });
    await queue.enqueue("bad", undefined, { key: "k4" });
    await queue.enqueue("wait", undefined, { key: "k3", ttl: 0, retryDelay: 1.5, retryBackoff: true });
    const { ended } = await startWorker(queue);
    await runs;
    await queue.abort("k3", "nope");
    await Promise.all([ended("k1", 2), ended("k5"), ended("k4"), ended("k3")]);
    const rows = await database.query<Row>(
      `select key, status, priority, group_key as "groupKey", scheduled::float8, expire_at::float8 as "expireAt",
         convert_from(job, 'UTF8') as document from history order by nth`,
    );
    for (const row of rows) lives[row.key] = [...(lives[row.key] ?? []), row];
  });

  it.each([
    ["J-30 enqueued", "k1", 0],
    ["J-32 started", "k1", 1],
    ["J-33 updated", "k1", 2],
    ["J-34 retried at once", "k1", 3],
    ["J-36 complete", "k1", 5],
    ["J-35 retried after a delay", "k5", 2],
    ["J-37 failed", "k4", 2],
    ["J-39 aborting", "k3", 2],
    ["J-39 aborted at its end, ttl 0", "k3", 3],
  ])("T-190, J-41, %s: our row equals Python's", (clause, key, nth) => {
    const ours = lives[key]?.[nth] as Row;
    const theirs = recorded(clause);
    const function_ = key === "k3" ? { function: "wait" } : {};
    const wanted = comparable(theirs);
    expect(comparable(ours)).toEqual({ ...wanted, members: { ...wanted.members, ...function_ } });
    expect(pythonComplaints(ours.document, queueName)).toEqual([]);
  });

  it("T-190, J-41, J-38 aborted while queued: our row equals Python's, but does not block its key (D-31)", () => {
    const wanted = comparable(recorded("J-38 aborted while queued"));
    expect(comparable(lives.k2?.[1] as Row)).toEqual({ ...wanted, scheduled: 0 });
  });

  it("J-16, D-83: a finished job is kept as long as in Python, but a failed one for a week", () => {
    expect(keptFor(recorded("J-36 complete"))).toBeCloseTo(600, -1);
    expect(keptFor(lives.k1?.[5] as Row)).toBeCloseTo(600, -1);
    expect(keptFor(recorded("J-37 failed"))).toBeCloseTo(600, -1);
    expect(keptFor(lives.k4?.[2] as Row)).toBeCloseTo(7 * 86_400, -1);
    expect(lives.k3?.[3]?.expireAt).toBeNull();
  });

  it("V-5: each step of a job writes its row exactly once", () => {
    expect(
      Object.fromEntries(Object.entries(lives).map(([key, rows]) => [key, rows.map((row) => row.status)])),
    ).toEqual({
      k1: ["queued", "active", "active", "queued", "active", "complete"],
      k2: ["queued", "aborted"],
      k3: ["queued", "active", "aborting", "aborted"],
      k4: ["queued", "active", "failed"],
      k5: ["queued", "active", "queued"],
    });
  });
});

describe("values from Python that JavaScript reads differently", () => {
  /** Returns the text of `kwargs` exactly as it is written, numbers too. */
  const kwargsOf = (text: string) => /"kwargs": (\{.*?\})(?=, "|\}$)/.exec(text)?.[1];

  it.each(oddDocuments)("D-64, T-190, $clause: is unchanged after our claim and retry", async (golden) => {
    const queue = openQueue(database, {});
    await queue.connect();
    const { key, groupKey } = golden;
    await insertRow(database, {
      key,
      queue: queue.name,
      document: documentIn(queue.name, golden),
      group_key: groupKey,
    });
    const [claimed] = await claim(queue, { grouped: groupKey !== null });
    if (!claimed) throw new Error("not claimed");
    expect(await settle(queue, settlement(claimed, "queued", {}, { scheduled: 1 }))).toBe("applied");
    const text = (await rowOf(database, key))?.text ?? "";
    // jsonb writes an exponent out as digits. The number stays the same for a reader that uses doubles.
    const spelled = (members = "") =>
      members.replaceAll(/-?\d[\d.e+-]*/g, (number) =>
        /[.e]|^-?\d{30}/.test(number) ? String(Number(number) || 0) : number,
      );
    expect(kwargsOf(text)).toBeDefined();
    expect(spelled(kwargsOf(text))).toBe(spelled(kwargsOf(golden.document)));
    expect(pythonComplaints(text.replaceAll(/-?Infinity|NaN/g, "0"), queue.name)).toEqual([]);
  });
});
