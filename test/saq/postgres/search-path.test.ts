/** Code that other roles have put into a schema where a worker may call it: it never runs with the worker's rights. */
import { randomBytes } from "node:crypto";
import { afterEach, describe, expect, it } from "@jest/globals";
import { type Context, cronJob } from "../../../templates/backend/saq/index.js";
import { namesIn, saqTables } from "../../../templates/backend/saq/postgres/schema/names.js";
import { ensureSchema } from "../../../templates/backend/saq/postgres/schema/schema.js";
import { openTuneClient, planTune, runTune } from "../../../templates/backend/saq/postgres/schema/tune.js";
import { buildScheduleStatements } from "../../../templates/backend/saq/postgres/sql/schedules.js";
import { buildStatements, serverStatements } from "../../../templates/backend/saq/postgres/sql/statements.js";
import { makeRole } from "../support/dml-role.js";
import { LogBook } from "../support/log-book.js";
import {
  claim,
  closeAfterTest,
  insertRow,
  openQueue,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";
import { layTraps } from "../support/traps.js";

const database = useDatabase();

let tries = 0;
const tasks = {
  double: async (_ctx: unknown, { n }: { n: number }) => n * 2,
  again: async (ctx: Context) => {
    await ctx.job.update({ progress: 0.5, meta: { seen: true } });
    if (++tries < 2) throw new Error("once more");
    return "done";
  },
  tick: async () => {},
};

afterEach(async () => {
  await database.query(
    "drop schema public cascade; create schema public; drop schema if exists traps cascade",
  );
});

/** Runs jobs of every kind in one queue until they have ended. */
async function runEverything(url: string, log = new LogBook()) {
  const queue = openQueue({ url }, tasks, {
    logger: log,
    scheduledTasks: [cronJob("tick", { cron: "* * * * * *" })],
  });
  const worker = await startWorker(queue);
  tries = 0;
  const jobs = [
    await queue.enqueue("double", { n: 1 }),
    await queue.enqueue("double", { n: 2 }, { key: `k ${randomBytes(3).toString("hex")}`, priority: 3 }),
    await queue.enqueue("double", { n: 3 }, { groupKey: "g", scheduled: Math.floor(Date.now() / 1_000) - 2 }),
    await queue.enqueue("again", undefined, { retries: 3 }),
  ].filter((job) => job !== null);
  // A document as Python writes it, which the engine reads as JSON.
  const key = randomBytes(6).toString("hex");
  const document = `{"function": "double", "kwargs": {"n": 4}, "queue": "${queue.name}", "key": "${key}", "queued": 1, "status": "queued"}`;
  await insertRow(database, { key, queue: queue.name, document: Buffer.from(document) });
  expect(await queue.apply("double", { n: 5 })).toBe(10);
  for (const job of jobs) await until(async () => (await job.refresh()).status === "complete");
  await until(async () => (await queue.job(key))?.status === "complete");
  await until(
    async () => (await queue.broker.schedules.list())?.some(({ lastRun }) => lastRun !== null) ?? true,
  );
  expect((await queue.job(key))?.result).toBe(8);
  expect((await queue.counts()).complete).toBeGreaterThan(5);
  return { queue, worker, log };
}

/** Returns true for types, and for words of the grammar that are also names of functions. */
const isWord = (name: string) =>
  /^(numeric|text|int4|int8|bool|any|extract|substring|overlay|trim)$/.test(name);

/** Returns true if there is more than one argument before the closing parenthesis. */
function isList(rest: string): boolean {
  let depth = 0;
  for (const character of rest) {
    if (character === "," && depth === 0) return true;
    if (character === "(") depth++;
    if (character === ")" && --depth < 0) return false;
  }
  return false;
}

/** Returns SQL for a foreign function with the name of the engine's document function. */
const strange = (what: string) =>
  `create function public.saq_stamp_v3(job bytea, charge integer, removed text[], patch text, owner text)
   returns jsonb language plpgsql as $$ begin perform setval('public.called', 1); ${what} end $$`;

const wasCalled = async () =>
  (await database.query<{ is_called: boolean }>("select is_called from public.called"))[0]?.is_called;

async function makeStranger(rights: string): Promise<string> {
  const name = `saq_stranger_${randomBytes(4).toString("hex")}`;
  await database.query(`create role ${name}; grant ${rights} on schema public to ${name}`);
  closeAfterTest({ close: () => database.query(`drop owned by ${name}; drop role ${name}`) });
  return name;
}

describe("operators and functions in a schema of the search path", () => {
  it("are never called, even if their argument types fit better than those of PostgreSQL's own", async () => {
    const { trapped } = await layTraps(database);
    const { queue } = await runEverything(database.url);
    const client = await openTuneClient(database.url);
    closeAfterTest({ close: () => client.end() });
    await planTune(client);
    await queue.enqueue("double", { n: 1 });
    await queue.pause({ task: "again", seconds: 60, by: "ann", reason: "test" });
    await queue.pause({ group: "paused" });
    expect(await queue.pauses()).toHaveLength(2);
    const grouped = await queue.enqueue("double", { n: 6 }, { groupKey: "g" });
    expect(await queue.apply("double", { n: 7 })).toBe(14);
    await until(async () => (await grouped.refresh()).status === "complete");
    await queue.resume({ task: "again" });
    expect(await trapped()).toBeNull();
  });
});

describe("a statement of the engine", () => {
  it("names the schema of each function, except where grammar or exact types determine the function", async () => {
    const names = namesIn("public", saqTables);
    const texts = [
      ...Object.values(buildStatements(names)),
      ...Object.values(serverStatements),
      ...Object.values(buildScheduleStatements({ cron: "public.saq_cron", jobs: names.jobs })),
    ].map(({ text }) => text);
    const known = await database.query<{ name: string }>("select distinct proname as name from pg_proc");
    // These calls have no arguments, or PostgreSQL has functions for exactly their types. unnest of a list is grammar.
    const exact = ["clock_timestamp", "count", "get_byte", "now", "position", "row_number", "sum"];
    const isFunction = new Set(known.map(({ name }) => name));
    const unqualified = texts.flatMap((text) =>
      [...text.matchAll(/(?<![\w.$"])([a-z_]+)\(/g)].flatMap(({ 1: name = "", index }) => {
        if (!isFunction.has(name) || exact.includes(name) || isWord(name)) return [];
        const rest = text.slice(index + name.length + 1);
        return name === "unnest" && isList(rest) ? [] : [`${name}(${rest.slice(0, 40)}`];
      }),
    );
    expect(unqualified).toEqual([]);
  });
});

describe("a function with the same name as one of the engine's", () => {
  it("is not called and is logged once if an untrusted role owns it, and the tune command replaces it", async () => {
    await database.query("create sequence public.called");
    const name = await makeStranger("create, usage");
    await database.query(
      `set role ${name}; ${strange("return patch::jsonb;")};
       create function public.saq_enqueue(queue text, function text, kwargs jsonb default null, options jsonb default '{}')
         returns text language sql as $$ select '-- saq_enqueue 1' $$; reset role`,
    );
    const { log } = await runEverything(database.url);
    expect(await wasCalled()).toBe(false);
    const warned = log.lines.filter(({ message }) =>
      message.startsWith("a function with the name of an engine function"),
    );
    expect(warned.map(({ fields, level }) => [level, fields.function, fields.owner])).toEqual([
      ["warn", '"public"."saq_enqueue"', name],
      ["warn", '"public"."saq_stamp_v3"', name],
    ]);
    const client = await openTuneClient(database.url);
    closeAfterTest({ close: () => client.end() });
    expect(await runTune(client, await planTune(client))).toEqual([
      expect.objectContaining({ problem: null }),
    ]);
    expect((await planTune(client)).steps).toEqual([]);
    expect((await ensureSchema(client)).documentFunction).toBe('"public".saq_stamp_v3');
  });

  it("is not called if its text differs from the text of the engine's own function", async () => {
    await database.query("create sequence public.called");
    await database.query(strange("return null;"));
    const { log } = await runEverything(database.url);
    expect(await wasCalled()).toBe(false);
    expect(log.lines.map(({ message }) => message)).toContainEqual(
      expect.stringContaining("its text differs from the engine's function. Drop it"),
    );
  });

  it("is called by superusers and restricted roles if the tables' owner owns it and its text is ours", async () => {
    const client = await database.connect();
    await ensureSchema(client);
    const owner = await makeStranger("usage");
    await client.query(
      `alter table saq_jobs owner to ${owner}; alter function saq_stamp_v3 owner to ${owner}; alter function saq_enqueue owner to ${owner}`,
    );
    expect((await ensureSchema(client)).hasTemporaryFunction).toBe(false);
    const role = await makeRole(database);
    const queue = openQueue({ url: role.url }, tasks);
    await claim(queue);
    expect(await database.query("select 1 from pg_proc where proname like 'saq_stamp%'")).toHaveLength(1);
    await client.query("revoke execute on function saq_stamp_v3 from public");
    const other = openQueue({ url: role.url }, tasks);
    await claim(other);
    expect(await database.query("select 1 from pg_proc where proname like 'saq_stamp%'")).not.toHaveLength(1);
  });
});
