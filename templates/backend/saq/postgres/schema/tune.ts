/**
 * Brings tables that Python made to our layout: first a plan, which only reads, then its run. No step rewrites a table;
 * indexes are built and dropped CONCURRENTLY. A step may fail without harm to the other steps or to running jobs: the
 * next run continues where this one ended.
 */
import type pg from "pg";
import type { ClientBase } from "pg";
import { SaqError } from "../../errors.js";
import { Client } from "../connection/client.js";
import { clientConfig } from "../connection/client-settings.js";
import { isLockTimeout, isRefused, markUnavailable } from "../connection/errors.js";
import { missingFunctions } from "./functions.js";
import { type Index, indexName, jobIndexes, jobSettings, saqJobIndexes, statsIndexes } from "./layout.js";
import { keyspace, type Names, quote, saqTables, type TableSet } from "./names.js";
import { findTables, schemaVersion } from "./schema.js";

export interface TuneOptions {
  tables?: TableSet;
  /**
   * Whether Python workers use these tables. Their claims need SAQ's own two indexes. True creates the indexes where
   * they are missing. False drops them, because each is written three times for every job (without them 1.33 times the
   * throughput was measured). If left out, the indexes stay as they are.
   */
  python?: boolean | undefined;
}

interface TuneStep {
  /** What the step does, in one line. */
  what: string;
  /** The reason for the step. */
  reason: string;
  /** Sent one by one, each in its own transaction. */
  statements: readonly string[];
  /** Maximum wait for a lock, ms. */
  lockTimeout: number;
}

export interface TunePlan {
  /** Qualified and quoted name of the jobs table. */
  table: string;
  /** Empty if there is nothing to do. */
  steps: readonly TuneStep[];
  /** What stays as it is, and the reason. */
  notes: readonly string[];
}

export interface TuneResult {
  step: TuneStep;
  /** Null when the step is done; otherwise what went wrong and what to do about it. */
  problem: string | null;
}

/** Maximum wait for a lock, ms: while a statement waits for a table lock, other statements queue up behind it. */
const lockTimeoutMs = 1_000;

/**
 * Maximum wait of a CONCURRENTLY statement for a lock, ms. No other statement queues up behind it, but it waits for
 * every older transaction to end.
 */
const concurrentTimeoutMs = 60_000;

/**
 * Opens a connection for `planTune` and `runTune`, without the timeouts of connections that run jobs. The caller must
 * end it.
 *
 * @throws SaqError database_unavailable
 */
export async function openTuneClient(dsn: string): Promise<pg.Client> {
  const client = new Client(clientConfig(dsn, { noStartupOptions: true, name: "saq tune", queryTimeout: 0 }));
  try {
    await client.connect();
    return client;
  } catch (error) {
    throw markUnavailable(error);
  }
}

/**
 * Returns what these tables lack. Changes nothing.
 *
 * @throws SaqError config when there are no SAQ tables; schema_version when their version is not 3
 */
export async function planTune(client: ClientBase, options: TuneOptions = {}): Promise<TunePlan> {
  const { names, version } = await findTables(client, options.tables ?? saqTables);
  if (version === 0)
    throw new SaqError(
      "config",
      `There are no SAQ tables in schema ${quote(names.schema)} (${quote(names.tables.jobs)}), or they are older ` +
        "than version 1. They are created at the first start of a worker or of the API.",
    );
  if (version !== schemaVersion)
    throw new SaqError(
      "schema_version",
      `The SAQ tables in schema ${quote(names.schema)} have version ${version}, but tune supports version ` +
        `${schemaVersion}. ` +
        (version < schemaVersion ? "Start a worker once: it upgrades them." : "Update this application."),
    );
  const found = await readIndexes(client, names);
  const statsTableIndexes = asNamed(statsIndexes(names), found, names.stats);
  const saqIndexes = asNamed(saqJobIndexes(names), found, names.jobs);
  const missing = (index: Index, table: string, reason: string) =>
    indexStep(names, found, index, table, reason);
  const steps = [
    ...jobIndexes(names).map((index) => {
      const isOfList = index.name === indexName(names.tables.jobs, "failed");
      const reader = isOfList ? "lists of failed and aborted jobs" : "claims and sweeps";
      return missing(index, names.jobs, `with it, ${reader} read only the rows that they need`);
    }),
    ...statsTableIndexes.map((index) => missing(index, names.stats, "part of SAQ's version 3")),
    ...(options.python === true
      ? saqIndexes.map((index) => missing(index, names.jobs, "Python's claims use it"))
      : saqIndexes.map((index) => dropStep(names, found, index, options.python === false))),
    await settingsStep(client, names),
    await sequenceStep(client, names),
    await functionsStep(client, names),
  ].filter((step) => step !== null);
  return { table: names.jobs, steps, notes: notes(saqIndexes, found, options.python) };
}

/**
 * Runs the steps of a plan, and continues after a step that failed. Calls `done` after each step. Safe to repeat with a
 * new plan. Returns the results of all steps.
 *
 * @throws SaqError config when another tune of these tables is running
 */
export async function runTune(
  client: ClientBase,
  plan: TunePlan,
  done: (result: TuneResult) => void = () => {},
): Promise<TuneResult[]> {
  const lock = [keyspace.sweep, `${plan.table} tune`];
  const { rows } = await client.query<{ acquired: boolean }>(
    "select pg_catalog.pg_try_advisory_lock($1, pg_catalog.hashtext($2)) as acquired",
    lock,
  );
  if (!rows[0]?.acquired)
    throw new SaqError(
      "config",
      `Another run of tune for ${plan.table} is in progress. Wait until it has ended, then run tune again.`,
    );
  const results: TuneResult[] = [];
  try {
    await client.query("set statement_timeout = 0");
    for (const step of plan.steps) {
      const result = { step, problem: await runStep(client, step) };
      results.push(result);
      done(result);
    }
  } finally {
    await client
      .query("select pg_catalog.pg_advisory_unlock($1, pg_catalog.hashtext($2))", lock)
      .catch(() => {});
  }
  return results;
}

/** Returns the plan as text for the terminal. */
export function describePlan({ table, steps, notes: remarks }: TunePlan): string {
  const lines = steps.flatMap(({ what, reason, statements }, index) => [
    `${index + 1}. ${what}: ${reason}`,
    ...statements.map((statement) => `     ${firstLine(statement)};`),
  ]);
  const count = steps.length === 1 ? "1 step" : `${steps.length} steps`;
  const first = `${table}: ${steps.length === 0 ? "nothing" : count} to do.`;
  return [first, ...lines, ...remarks.map((remark) => `Note: ${remark}`)].join("\n");
}

/** The first line of a statement; for a function, that is its head without its body. */
const firstLine = (statement: string) => statement.split("\n", 1)[0] ?? "";

async function runStep(client: ClientBase, step: TuneStep): Promise<string | null> {
  try {
    await client.query(`set lock_timeout = ${step.lockTimeout}`);
    for (const statement of step.statements) await client.query(statement);
    return null;
  } catch (error) {
    const { message } = error as Error;
    if (isLockTimeout(error))
      return (
        `${message}; a transaction has been open for over ${step.lockTimeout / 1_000} s: ` +
        "run tune again when it has ended"
      );
    if (isRefused(error)) return `${message}; run tune as the owner of the tables`;
    return `${message}; run tune again`;
  }
}

interface FoundIndex {
  /** False if its CONCURRENTLY build was cancelled: such an index exists and is written, but never read. */
  valid: boolean;
  /** Qualified and quoted name of its table; null for a table that is not SAQ's jobs or stats table. */
  table: string | null;
  /** The columns, written as in `Index.definition`; null for a partial index. */
  columns: string | null;
}

type Indexes = ReadonlyMap<string, FoundIndex>;

/** Reads all indexes of the schema; returns them by name. */
async function readIndexes(client: ClientBase, { schema, jobs, stats }: Names): Promise<Indexes> {
  const { rows } = await client.query<FoundIndex & { name: string }>(
    `select c.relname as name, i.indisvalid as valid,
       case i.indrelid when $2::text::regclass then $2 when $3::text::regclass then $3 end as table,
       case when i.indpred is null then (select '(' || pg_catalog.string_agg(a.attname, ', ' order by k.place) || ')'
         from pg_catalog.unnest(i.indkey::int2[]) with ordinality k(number, place)
         join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number) end as columns
     from pg_index i join pg_class c on c.oid = i.indexrelid
     join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1`,
    [schema, jobs, stats],
  );
  return new Map(rows.map(({ name, ...index }) => [name, index]));
}

/**
 * Returns SAQ's own indexes with the names that they have in this schema: Python gives them the same names whatever the
 * table is called.
 */
const asNamed = (indexes: readonly Index[], found: Indexes, table: string): Index[] =>
  indexes.map(({ name, definition }) => {
    if (found.get(name)?.table === table) return { name, definition };
    const there = [...found].find(([, index]) => index.table === table && index.columns === definition);
    return { name: there?.[0] ?? name, definition };
  });

const dropConcurrently = ({ schema }: Names, { name }: Index) =>
  `drop index concurrently if exists ${quote(schema)}.${quote(name)}`;

function indexStep(
  names: Names,
  found: Indexes,
  index: Index,
  table: string,
  reason: string,
): TuneStep | null {
  const valid = found.get(index.name)?.valid;
  if (valid) return null;
  const isUnfinished = valid === false;
  return {
    what: `${isUnfinished ? "rebuild" : "create"} index ${index.name}`,
    reason: isUnfinished ? `it was not finished; ${reason}` : reason,
    statements: [
      ...(isUnfinished ? [dropConcurrently(names, index)] : []),
      `create index concurrently ${quote(index.name)} on ${table} ${index.definition}`,
    ],
    lockTimeout: concurrentTimeoutMs,
  };
}

/**
 * The step that drops one of SAQ's own indexes: a valid one only if it is unwanted, an unfinished one in any case. Null
 * when nothing is to be dropped.
 */
function dropStep(names: Names, found: Indexes, index: Index, isUnwanted: boolean): TuneStep | null {
  const valid = found.get(index.name)?.valid;
  if (valid === undefined || (valid && !isUnwanted)) return null;
  return {
    what: `drop index ${index.name}`,
    reason: valid
      ? "only Python's claims read it, and every job writes it three times"
      : "it was not finished",
    statements: [dropConcurrently(names, index)],
    lockTimeout: concurrentTimeoutMs,
  };
}

async function settingsStep(client: ClientBase, { jobs }: Names): Promise<TuneStep | null> {
  const { rows } = await client.query<{ options: string[] | null }>(
    "select reloptions as options from pg_class where oid = $1::regclass",
    [jobs],
  );
  const has = new Set(rows[0]?.options ?? []);
  const names = new Set([...has].map((option) => option.split("=")[0]));
  // A setting that somebody has set to another value is left alone.
  const missing = Object.entries(jobSettings).filter(([name]) => !names.has(name));
  if (missing.length === 0) return null;
  return {
    what: "set autovacuum for a table whose rows change often",
    reason: "every job leaves two dead rows, which claims would have to skip",
    statements: [
      `alter table ${jobs} set (${missing.map(([name, value]) => `${name} = ${value}`).join(", ")})`,
    ],
    lockTimeout: lockTimeoutMs,
  };
}

async function sequenceStep(client: ClientBase, { jobs }: Names): Promise<TuneStep | null> {
  const { rows } = await client.query<{ sequence: string | null; cycles: boolean | null }>(
    `select s.name as sequence, (select seqcycle from pg_sequence where seqrelid = s.name::regclass) as cycles
     from (select pg_catalog.pg_get_serial_sequence($1, 'lock_key') as name) s`,
    [jobs],
  );
  const { sequence = null, cycles = null } = rows[0] ?? {};
  if (sequence === null || cycles !== false) return null;
  return {
    what: `let the sequence ${sequence} start over at its end`,
    reason: "it ends at 2,147,483,647, and then every enqueue fails",
    statements: [`alter sequence ${sequence} cycle`],
    lockTimeout: lockTimeoutMs,
  };
}

async function functionsStep(client: ClientBase, names: Names): Promise<TuneStep | null> {
  const statements = await missingFunctions(client, names);
  if (statements.length === 0) return null;
  return {
    what: "create the engine's functions",
    reason: "with them, roles that may not create functions work faster, and SQL can enqueue jobs",
    statements,
    lockTimeout: lockTimeoutMs,
  };
}

function notes(saqIndexes: readonly Index[], found: Indexes, python: boolean | undefined): string[] {
  if (python !== undefined) return [];
  const kept = saqIndexes.filter(({ name }) => found.get(name)?.valid);
  if (kept.length === 0) return [];
  const list = kept.map(({ name }) => name).join(" and ");
  return [
    `${list} stay, because Python's claims use them. If no Python worker uses these tables, they only cost time ` +
      "(without them, 1.33 times the throughput was measured): tune with python: false drops them.",
  ];
}
