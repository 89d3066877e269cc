/**
 * Plans of the frequent statements, as the engine's own connections make them: with statistics of an empty table (as
 * after a quiet night) and of a full one, on our tables and on Python's.
 */
import { beforeEach, describe, expect, it } from "@jest/globals";
import pg from "pg";
import { clientConfig } from "../../../templates/backend/saq/postgres/connection/client-settings.js";
import { ensureSchema } from "../../../templates/backend/saq/postgres/schema/schema.js";
import { buildStatements, type Statements } from "../../../templates/backend/saq/postgres/sql/statements.js";
import { closeAfterTest, useDatabase } from "../support/scenario.js";

const database = useDatabase();

const pythonIndexes = `
  create index saq_jobs_status_queue_group_key_idx on saq_jobs (status, queue, group_key);
  create index saq_jobs_status_queue_priority_scheduled_idx on saq_jobs (status, queue, priority, scheduled);`;

const patch = '{"status":"active"}';
const keys = ["k1", "k2"];
const settle = [
  "q",
  keys,
  [1, 2],
  [1, 2],
  ["complete", "queued"],
  [patch, patch],
  ["{}", "{}"],
  [0, 0],
  [600, null],
  [0, 0],
  ["w1", "w1"],
];

const complete = ["q", "k1\x1ek2", "1\x1e1", "{}\x1e{}", "600\x1e600", [7], "{ab}", [1], 2];

/** Every statement of the hot path, with values for its parameters. */
const hot: Partial<Record<keyof Statements, unknown[]>> = {
  insert: ["q", keys, ["{}", "{}"], [0, 0], [null, "g"], [0, 0], "saq:q"],
  upsert: ["q", keys, ["{}", "{}"], [0, 0], [null, "g"], [0, 0], "saq:q"],
  claim: ["q", 0, 32767, 10, 7, patch],
  groupHeads: ["q", 0, 32767, "", 10, 100, 1],
  lockGroups: ["q", keys, ["g1", "g2"], 10],
  claimGroups: ["q", 0, 32767, 10, 7, patch, ["g1", "g2"], 1],
  hasGrouped: ["q"],
  nextWork: ["q", 0, 32767],
  settle,
  complete,
  completeAndDelete: ["q", "k1\x1ek2", "1\x1e1", [7], "{ab}", 2],
  recorded: ["q", keys, ["w1", "w1"], [null, "3"]],
  completeAndNotify: [...complete, ["complete k1", null], ["saq+q", null]],
  settleAndNotify: [...settle, ["complete k1", null], ["saq+q", null]],
  heartbeat: ["q", keys, [1, 2], [patch, patch], ["{}", "{}"], ["w1", "w1"], [true, false]],
  runningByToken: ["q", [7]],
  owners: ["q", keys, ["w1", "w1"], ["(0,1) 700", "(0,2) 700"]],
  lockRows: ["q", keys],
  freeRows: ["q", keys],
  updateRows: [
    "q",
    keys,
    ["queued", "queued"],
    "{NULL,NULL}",
    [0, 0],
    [true, true],
    [5, 5],
    [7, 7],
    ["saq:q"],
    ["saq:enqueue"],
    [true, false],
  ],
  changePage: [
    "q",
    keys,
    '{"(0,1)","(0,2)"}',
    ["700", "701"],
    ["queued", "queued"],
    "{}\x1e{}",
    [0, 0],
    [true, true],
    "{NULL,NULL}",
    [7, 7],
    [true, false],
    [null, "aborted k1"],
    "saq+q",
    "saq:q",
  ],
  fetch: ["q", keys],
  running: ["q", 0, "", 500],
  limits: ["q", keys, 1000],
  runningOfWorker: ["q", "w1"],
};

/** Lists that people read, and pages of them. */
const pageOf = (statuses: string[], after: string | null) => [
  "q",
  statuses,
  after,
  2_000,
  500,
  null,
  "k",
  "\\x62",
  "\\x62",
  null,
  null,
];
const lists: Partial<Record<keyof Statements, unknown[]>> = {
  listRunning: ["q", ["active"], 0, 25],
  listFailed: ["q", ["failed", "aborted"], 0, 25],
  failedPage: pageOf(["failed", "aborted"], "k5"),
  failedPageBack: pageOf(["failed", "aborted"], "k5"),
  failedPageLast: pageOf(["failed", "aborted"], null),
  runningPage: pageOf(["active"], "k5"),
  runningPageBack: pageOf(["active"], "k5"),
  anyPage: pageOf(["queued", "complete"], "k5"),
  anyPageBack: pageOf(["queued", "complete"], "k5"),
};

/** The statements that look rows up by key. */
const keyed: (keyof Statements)[] = [
  "complete",
  "completeAndNotify",
  "completeAndDelete",
  "recorded",
  "settle",
  "settleAndNotify",
  "heartbeat",
  "fetch",
  "owners",
  "limits",
  "lockRows",
  "freeRows",
  "updateRows",
];

interface Plan {
  "Node Type": string;
  "Relation Name"?: string;
  "Index Name"?: string;
  "Index Cond"?: string;
  "TID Cond"?: string;
  Plans?: Plan[];
}

function* nodes(plan: Plan): Generator<Plan> {
  yield plan;
  for (const child of plan.Plans ?? []) yield* nodes(child);
}

/** Returns how each statement reaches the rows of saq_jobs. */
async function reachesOf(client: pg.Client, statements: Statements, asked = hot) {
  const reaches: Record<string, { how: string; index: string | undefined; by: string | undefined }[]> = {};
  for (const [name, values] of Object.entries(asked)) {
    const { text } = statements[name as keyof Statements];
    await client.query("begin");
    // As the engine runs them: prepared, with a plan that does not depend on values.
    const prepared = `plan_${name}`;
    await client.query(`prepare ${prepared} as ${text}`);
    const literals = values.map((value) => literal(value)).join(", ");
    const { rows } = await client.query<{ "QUERY PLAN": [{ Plan: Plan }] }>(
      `explain (format json) execute ${prepared}(${literals})`,
    );
    await client.query("rollback");
    await client.query(`deallocate ${prepared}`);
    const plan = rows[0]?.["QUERY PLAN"][0].Plan;
    reaches[name] = plan
      ? [...nodes(plan)]
          .filter((node) => node["Relation Name"] === "saq_jobs" && node["Node Type"] !== "ModifyTable")
          .map((node) => ({
            how: node["Node Type"],
            index: node["Index Name"],
            by: node["Index Cond"] ?? node["TID Cond"],
          }))
      : [];
  }
  return reaches;
}

const indexesOf = (reaches: { index: string | undefined }[] = []) => [
  ...new Set(reaches.flatMap(({ index }) => index ?? [])),
];

function literal(value: unknown): string {
  if (value === null) return "null";
  if (typeof value === "string") return pg.escapeLiteral(value);
  if (Array.isArray(value)) return `array[${value.map(literal).join(", ")}]`;
  return String(value);
}

beforeEach(() => database.query("drop table if exists saq_jobs, saq_stats, saq_versions"));

const fill = `
  insert into saq_jobs (key, job, queue, status, priority, group_key, scheduled, expire_at)
  select 'k' || n, '{}', case when n % 10 = 0 then 'other' else 'q' end,
    (array['queued', 'complete', 'complete', 'failed', 'active'])[1 + n % 5], n % 3,
    case when n % 7 = 0 then 'g' || n % 50 end, 1000 + n, case when n % 5 in (1, 2, 3) then 2000000000 end
  from generate_series(1, 20000) n`;

describe.each([
  ["an empty table", "vacuum analyze saq_jobs", "select 1"],
  ["an empty table that was filled afterwards", "analyze saq_jobs", fill],
  ["a full table", `${fill}; analyze saq_jobs`, "select 1"],
])("query plans with statistics of %s", (_, before, after) => {
  it("on our tables, every statement of the hot path finds its rows by an index", async () => {
    const client = closeable(new pg.Client(clientConfig(database.url, { noStartupOptions: false })));
    await client.connect();
    const statements = buildStatements(await ensureSchema(client));
    await database.query(before);
    await database.query(after);
    const reaches = await reachesOf(client, statements);
    for (const [name, found] of Object.entries(reaches)) {
      for (const reach of found) {
        expect({ name, ...reach }).toMatchObject({
          name,
          how: expect.stringMatching(/^(Index( Only)?|Tid) Scan$/),
        });
        // An index scan without a condition reads the whole index, which is as bad as a sequential scan.
        expect({ name, ...reach }).toMatchObject({ name, by: expect.any(String) });
      }
    }
    // A statement that looks rows up by key must not use the index of running rows, whatever the statistics say.
    // Measured with that index: 263 instead of 30,000 settlements/s.
    for (const name of keyed)
      expect({ name, by: indexesOf(reaches[name]) }).toEqual({ name, by: ["saq_jobs_pkey"] });
    expect(reaches.claim?.map(({ index }) => index)).toContain("saq_jobs_ready_idx");
    expect(reaches.groupHeads?.map(({ index }) => index)).toContain("saq_jobs_ready_group_idx");
    expect(reaches.groupHeads?.map(({ index }) => index)).toContain("saq_jobs_running_group_idx");
    expect(reaches.running?.map(({ index }) => index)).toEqual(["saq_jobs_running_idx"]);
    expect(reaches.runningByToken?.map(({ index }) => index)).toEqual(["saq_jobs_running_idx"]);
  });

  it("lists of running, failed and aborted jobs read only the rows of such jobs", async () => {
    const client = closeable(new pg.Client(clientConfig(database.url, { noStartupOptions: false })));
    await client.connect();
    const statements = buildStatements(await ensureSchema(client));
    await database.query(before);
    await database.query(after);
    const reaches = await reachesOf(client, statements, lists);
    for (const name of ["listRunning", "runningPage", "runningPageBack"])
      expect({ name, by: indexesOf(reaches[name]) }).toEqual({ name, by: ["saq_jobs_running_idx"] });
    for (const name of ["listFailed", "failedPage", "failedPageBack", "failedPageLast"])
      expect({ name, by: indexesOf(reaches[name]) }).toEqual({ name, by: ["saq_jobs_failed_idx"] });
    for (const name of ["anyPage", "anyPageBack"]) {
      expect({ name, by: indexesOf(reaches[name]) }).toEqual({ name, by: ["saq_jobs_pkey"] });
      expect(reaches[name]?.[0]?.by).toMatch(/^\(key [<>] /);
    }
    // The documents of a page are then read by their place.
    for (const name of ["failedPage", "anyPage"])
      expect(reaches[name]?.slice(1).map(({ how }) => how)).toEqual(["Tid Scan", "Tid Scan"]);
  });

  it("on Python's tables, every statement of the hot path finds its rows by an index", async () => {
    await database.query(`
      create table saq_versions (version integer); insert into saq_versions values (3);
      create table saq_stats (worker_id text primary key, stats jsonb, expire_at bigint, metadata jsonb, queue_key text);
      create table saq_jobs (
        key text primary key, lock_key serial not null, job bytea not null, queue text not null, status text not null,
        priority smallint not null default 0, group_key text,
        scheduled bigint not null default extract(epoch from now()), expire_at bigint);
      ${pythonIndexes}`);
    const client = closeable(new pg.Client(clientConfig(database.url, { noStartupOptions: false })));
    await client.connect();
    const statements = buildStatements(await ensureSchema(client));
    await database.query(before);
    await database.query(after);
    const reaches = await reachesOf(client, statements);
    for (const [name, found] of Object.entries(reaches)) {
      for (const reach of found) {
        expect({ name, ...reach }).toMatchObject({
          name,
          how: expect.stringMatching(/^(Index( Only)?|Tid) Scan$/),
        });
        expect({ name, ...reach }).toMatchObject({ name, by: expect.any(String) });
      }
    }
    const { anyPage, anyPageBack, runningPage, runningPageBack } = await reachesOf(client, statements, lists);
    for (const found of [anyPage, anyPageBack]) expect(indexesOf(found)).toEqual(["saq_jobs_pkey"]);
    for (const found of [runningPage, runningPageBack])
      expect(indexesOf(found)).toEqual([expect.stringMatching(/^saq_jobs_status_queue_/)]);
    // They must not scan a whole queue either: SAQ's indexes have the queue as their second column.
    for (const name of keyed)
      expect({ name, by: indexesOf(reaches[name]) }).toEqual({ name, by: ["saq_jobs_pkey"] });
  });
});

function closeable(client: pg.Client): pg.Client {
  closeAfterTest({ close: () => client.end() });
  return client;
}
