/** Lists by what is in a job: its task, its error, its key and its time. */
import { describe, expect, it } from "@jest/globals";
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { claim, insertRow, openQueue, settle, settlement, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const tasks = { mail: async () => null, report: async () => null };
const open = () => openQueue(database, tasks);

/** Stores jobs with these errors; null = the job waits. Returns their keys in the order of the errors. */
async function store(
  queue: Queue<typeof tasks>,
  task: keyof typeof tasks,
  errors: readonly (string | null)[],
) {
  const keys: string[] = [];
  for (const error of errors) {
    const job = await queue.enqueue(task, undefined, { scheduled: error === null ? inSeconds(600) : 0 });
    keys.push(job.key);
    if (error === null) continue;
    const [claimed] = await claim(queue);
    if (claimed) await settle(queue, settlement(claimed, "failed", { error, completed: Date.now() }));
  }
  return keys;
}

describe("a list", () => {
  it("has the jobs of a task, with a part of an error, with a beginning of their key, and of a time", async () => {
    const queue = open();
    const mails = await store(queue, "mail", ["Error: connect ECONNREFUSED", 'Error: "päper" ☂', null]);
    const reports = await store(queue, "report", ["Error: no ECONNREFUSED here", null]);
    const listed = async (filter: Parameters<typeof queue.list>[0]) =>
      (await queue.list(filter)).map(({ key }) => key).sort();
    expect(await listed({ task: "mail" })).toEqual([...mails].sort());
    expect(await listed({ task: "mai" })).toEqual([]);
    expect(await listed({ error: "ECONNREFUSED" })).toEqual([mails[0], reports[0]].sort());
    expect(await listed({ error: '"päper" ☂' })).toEqual([mails[1]]);
    expect(await listed({ error: "" })).toEqual([mails[0], mails[1], reports[0]].sort());
    expect(await listed({ task: "mail", statuses: ["queued"] })).toEqual([mails[2]]);
    expect(await listed({ task: "mail", statuses: ["queued"], due: true })).toEqual([]);
    expect(await listed({ keyPrefix: String(mails[1]).slice(0, -1) })).toEqual([mails[1]]);
    const { queued = 0 } = (await queue.job(mails[1] ?? "")) ?? {};
    expect(await listed({ enqueuedBefore: queued, task: "mail" })).not.toContain(mails[1]);
    expect(await listed({ enqueuedAfter: new Date(queued) })).toEqual(
      expect.arrayContaining([mails[1], mails[2], ...reports]),
    );
    expect(await listed({ enqueuedAfter: queued + 3_600_000 })).toEqual([]);
  });

  it("starts with the newest jobs, and can be read page by page", async () => {
    const queue = open();
    const mails = await store(queue, "mail", Array(5).fill("Error: no"));
    await store(queue, "report", ["Error: no", "Error: no"]);
    const page = async (offset: number, limit: number) =>
      (await queue.list({ task: "mail", statuses: ["failed"], offset, limit })).map(({ key }) => key);
    const newestFirst = [...mails].reverse();
    expect(await page(0, 10)).toEqual(newestFirst);
    const pages = [...(await page(0, 2)), ...(await page(2, 2)), ...(await page(4, 2))];
    expect([...pages].sort()).toEqual([...mails].sort());
    expect(await page(5, 2)).toEqual([]);
  });

  it("finds a few jobs among many others, also in documents that Python has written", async () => {
    const queue = open();
    const waiting = Array.from({ length: 1_200 }, (_, n) => ({
      task: "report" as const,
      key: `r:${queue.name}:${n}`,
    }));
    await queue.enqueueMany(waiting);
    const key = `python:${queue.name}`;
    const document =
      `{"function": "m\\u00e4il", "queue": "${queue.name}", "key": "${key}", "queued": 1, ` +
      `"error": "caf\\u00e9 \\u2602", "status": "queued"}`;
    await insertRow(database, { key, queue: queue.name, document });
    expect((await queue.list({ task: "mäil" })).map((job) => job.key)).toEqual([key]);
    expect((await queue.list({ error: "é ☂" })).map((job) => job.key)).toEqual([key]);
    expect((await queue.list({ enqueuedBefore: 2 })).map((job) => job.key)).toEqual([key]);
  });

  it("is part of info", async () => {
    const queue = open();
    const [first] = await store(queue, "mail", [null]);
    await store(queue, "report", [null]);
    const { jobs } = await queue.info({ jobs: true, task: "mail" });
    expect(jobs.map((job) => job.key)).toEqual([first]);
  });

  it.each<[object, string]>([
    [{ task: 1 }, "list: task must be a text, got 1"],
    [{ error: null }, "list: error must be a text, got null"],
    [{ enqueuedAfter: "yesterday" }, 'list: enqueuedAfter must be a Date or epoch ms, got "yesterday"'],
    [{ enqueuedBefore: Number.NaN }, "list: enqueuedBefore must be a Date or epoch ms"],
  ])("refuses %j", async (filter, message) => {
    await expect(open().list(filter)).rejects.toMatchObject({
      code: "invalid_job",
      message: expect.stringContaining(message),
    });
  });
});
