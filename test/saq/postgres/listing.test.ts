/** Lists of jobs that people read: their order, and how long they may take. */
import { expect, it } from "@jest/globals";
import express from "express";
import supertest from "supertest";
import { silentLogger } from "../../../templates/backend/saq/logger.js";
import { createWebRouter } from "../../../templates/backend/saq/web/index.js";
import { makeRole } from "../support/dml-role.js";
import { insertRow, openQueue, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const tasks = { echo: async () => null };

it("a list starts with the newest job if all jobs fit into one page; otherwise it is sorted by key", async () => {
  const queue = openQueue(database, tasks);
  const keys = ["zebra", undefined, "cron:nightly", undefined, "apple", "."];
  const jobs: string[] = [];
  for (const key of keys) {
    const job = await queue.enqueue("echo", undefined, { key });
    jobs.unshift(String(job?.key));
    await database.query("select pg_sleep(0.002)");
  }
  const listed = (await queue.list()).map(({ key }) => key);
  expect(listed).toEqual(jobs);
  const paged = [0, 2, 4].map((offset) => queue.list({ offset, limit: 2 }));
  const byKey = (await Promise.all(paged)).flat().map(({ key }) => key);
  const [sorted] = await database.query<{ keys: string[] }>(
    "select array_agg(key order by key desc) as keys from saq_jobs where queue = $1",
    [queue.name],
  );
  expect(byKey).toEqual(sorted?.keys);
});

it("a list that reads too many rows fails after 5 s, and the error names the command that adds an index", async () => {
  const owner = openQueue(database, tasks);
  await owner.connect();
  for (let n = 0; n < 200; n++)
    await insertRow(database, { key: `k${n}`, queue: owner.name, document: "{", status: "failed" });
  const { url } = await makeRole(database);
  // The policy takes 50 ms for each row: 10 s in all.
  await database.query(`
    create function slowly() returns boolean language plpgsql as $$ begin perform pg_sleep(0.05); return true; end $$;
    alter table saq_jobs enable row level security;
    create policy slow on saq_jobs using (slowly())`);
  const queue = openQueue({ url }, tasks, { name: owner.name });
  await expect(queue.list({ statuses: ["failed"], limit: 500 })).rejects.toMatchObject({
    code: "list_too_slow",
    message: expect.stringMatching(
      /^The list of failed jobs in queue ".*cancelled after 5 s\. .*npm run saq -- tune/,
    ),
  });
  // A web page asks every two seconds. The database must not be asked each time.
  let asked = 0;
  const own = {
    info: async () => ({}),
    list: (filter: object) => {
      asked++;
      return queue.list(filter);
    },
  };
  const counted = Object.assign(Object.create(queue) as typeof queue, own);
  const router = createWebRouter({ queues: [counted], path: "/saq", logger: silentLogger });
  const app = express().use("/saq", router);
  for (let n = 0; n < 3; n++) {
    const { status, body } = await supertest(app).get(`/saq/api/queues/${queue.name}?status=failed`);
    expect([status, body.detail]).toEqual([409, expect.stringContaining("npm run saq -- tune")]);
  }
  expect(asked).toBe(1);

  // A page of a search has the same limit, and another text is not searched meanwhile.
  for (const query of ["task=echo", "task=other", "error=boom"]) {
    const { status } = await supertest(app).get(`/saq/api/queues/${queue.name}?status=failed&${query}`);
    expect({ query, status }).toEqual({ query, status: 409 });
  }
  expect(asked).toBe(2);

  await expect(queue.list({ limit: 500 })).rejects.toMatchObject({
    code: "list_too_slow",
    message: expect.stringContaining("queue.iterJobs"),
  });
}, 600_000);
