/**
 * Defines SAQ's tables and indexes. The columns are those of Python's SAQ, so that both can share the tables. Tables
 * that we create are faster than SAQ's own: they have partial indexes with only the rows that are read, and vacuum
 * settings for rows that change often. Tables that Python created are used as they are: everything works correctly,
 * only slower, until `tune` adds what is missing.
 */
import { failed } from "../sql/fragments.js";
import { type Names, quote } from "./names.js";

/** The name of an index as PostgreSQL would form it: it begins with the name of the table, as SAQ's index names do. */
export const indexName = (table: string, what: string): string => `${table}_${what}_idx`;

export interface Index {
  name: string;
  /** The text after `create index NAME on TABLE`. */
  definition: string;
}

/**
 * Partial indexes that hold only waiting or only running rows: a drain of 20,000 no-op jobs is 1.33 times as fast as
 * with SAQ's full indexes, and uses a quarter less server CPU.
 */
export const jobIndexes = ({ tables: { jobs } }: Names): Index[] =>
  [
    ["ready", "(queue, priority, scheduled, lock_key) where status = 'queued' and group_key is null"],
    [
      "ready_group",
      "(queue, group_key, priority, scheduled, lock_key) where status = 'queued' and group_key is not null",
    ],
    [
      "ready_group_order",
      "(queue, priority, scheduled, lock_key) where status = 'queued' and group_key is not null",
    ],
    ["running", "(queue, lock_key) where status in ('active', 'aborting')"],
    ["running_group", "(queue, group_key) where status in ('active', 'aborting') and group_key is not null"],
    // Only for lists. A job that completes never enters this index.
    ["failed", `(queue, status, key) where status in ${failed}`],
  ].map(([what = "", definition = ""]) => ({ name: indexName(jobs, what), definition }));

/** SAQ's own indexes of the jobs table. Our engine does not need them on a table that has `jobIndexes`. */
export const saqJobIndexes = ({ tables: { jobs } }: Names): Index[] => [
  { name: indexName(jobs, "status_queue_group_key"), definition: "(status, queue, group_key)" },
  {
    name: indexName(jobs, "status_queue_priority_scheduled"),
    definition: "(status, queue, priority, scheduled)",
  },
];

export const statsIndexes = ({ tables: { stats } }: Names): Index[] => [
  { name: indexName(stats, "expire_at"), definition: "(expire_at)" },
  { name: indexName(stats, "queue_key"), definition: "(queue_key)" },
];

/** Vacuum starts at 1 % of dead rows instead of 20 %, because every job leaves two dead rows. */
export const jobSettings = { autovacuum_vacuum_scale_factor: "0.01", autovacuum_vacuum_cost_delay: "0" };

/**
 * Returns the statements that create the jobs table.
 *
 * Rejected: generated columns instead of status, so that completing a job updates its row in place (HOT). With
 * ascending keys (key.ts) this was 1.02 to 1.08 times as fast, which is within the noise. It also gives up the index of
 * running rows, without which sweeping and counting read the whole table.
 *
 * The sequence of `lock_key` cycles, because an int4 sequence would otherwise run out, and every enqueue would fail.
 */
export function createJobs(names: Names): string[] {
  const { schema, jobs, tables } = names;
  const settings = Object.entries(jobSettings).map(([name, value]) => `${name} = ${value}`);
  return [
    `create table ${jobs} (
      key text primary key, lock_key serial not null, job bytea not null, queue text not null, status text not null,
      priority smallint not null default 0, group_key text,
      scheduled bigint not null default extract(epoch from now()), expire_at bigint
    ) with (${settings.join(", ")})`,
    `alter sequence ${quote(schema)}.${quote(`${tables.jobs}_lock_key_seq`)} cycle`,
    ...jobIndexes(names).map(
      ({ name, definition }) => `create index ${quote(name)} on ${jobs} ${definition}`,
    ),
  ];
}

/** Only older versions of Python's SAQ created the versions 1 and 2. They get SAQ's own upgrade to version 3. */
export function upgradeJobs(names: Names): string[] {
  const { schema, jobs, tables } = names;
  return [
    `alter table ${jobs} add column if not exists priority smallint not null default 0,
      add column if not exists group_key text`,
    ...createMissing(saqJobIndexes(names), jobs),
    `drop index if exists ${quote(schema)}.${quote(indexName(tables.jobs, "dequeue"))}`,
  ];
}

export const createStats = (names: Names): string[] => [
  `create table if not exists ${names.stats} (
    worker_id text primary key, stats jsonb, expire_at bigint, metadata jsonb, queue_key text)`,
  `alter table ${names.stats} add column if not exists metadata jsonb, add column if not exists queue_key text`,
  ...createMissing(statsIndexes(names), names.stats),
];

const createMissing = (indexes: readonly Index[], table: string): string[] =>
  indexes.map(
    ({ name, definition }) => `create index if not exists ${quote(name)} on ${table} ${definition}`,
  );
