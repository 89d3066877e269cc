/**
 * How SAQ's tables are laid out (P-2). Inside that contract a table that we make is kept better than SAQ's own: partial
 * indexes that hold only the rows that are asked for, and vacuum settings for a table that churns. Tables that Python
 * made are used as they are: everything is correct there, only slower, until `tune` brings them here.
 */
import { failed } from "./fragments.js";
import { type Names, quote } from "./names.js";

/** What PostgreSQL calls an index of that table; ours begin with its name, as SAQ's do. */
export const indexName = (table: string, what: string): string => `${table}_${what}_idx`;

export interface Index {
  name: string;
  /** What follows `create index NAME on TABLE`. */
  definition: string;
}

/**
 * Partial indexes hold only waiting or only running rows: a drain of 20,000 no-op jobs is 1.33 times as fast as over
 * SAQ's full ones, with a quarter less server CPU.
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
    // For lists only. A job that ends well never enters it.
    ["failed", `(queue, status, key) where status in ${failed}`],
  ].map(([what = "", definition = ""]) => ({ name: indexName(jobs, what), definition }));

/** SAQ's own indexes of jobs. Those that a table of ours has make them superfluous. */
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

/** Vacuum comes after 1 % of dead rows instead of 20 %: every job leaves two. */
export const jobSettings = { autovacuum_vacuum_scale_factor: "0.01", autovacuum_vacuum_cost_delay: "0" };

/**
 * Tried and left out: generated columns in place of status, so that completing a job updates its row in place (HOT).
 * With ascending keys (key.ts) they gained 1.02 to 1.08 times, within the noise, and cost the index of running rows,
 * without which sweeping and counting read the whole table.
 *
 * `lock_key` cycles, because its int4 sequence would otherwise run out and stop every enqueue (D-13).
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

/** Versions 1 and 2 were only ever made by older Pythons; they get SAQ's own step to 3 (P-4). */
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
