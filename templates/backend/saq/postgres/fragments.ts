/** What the statements share. `epoch` is the database's clock in whole seconds: it alone decides what is due, stuck or expired (5.2). */
import { keyspace, type Names } from "./names.js";

export const epoch = "pg_catalog.floor(extract(epoch from now()))::bigint";
/** Epoch ms, at this very moment. */
export const clock = "extract(epoch from clock_timestamp())::float8 * 1000::float8";
export const terminal = "('complete', 'failed', 'aborted')";
/** Ended, but not well: few of the finished. */
export const failed = "('failed', 'aborted')";
export const running = "('active', 'aborting')";
/**
 * The `group_key` of rows that must run alone and have no group of their own: of a group one job at a time is claimed,
 * by any worker. The document keeps its own `group_key`, which is null.
 */
export const aloneGroup = "saq:alone";

export interface Statement {
  /** Prepared under this name where the connection allows it. */
  name: string;
  text: string;
}

/** Between the texts of a list: JSON has no such character outside of escapes (RFC 7464), nor have generated keys. */
export const separator = "\x1e";
/** A list of texts; what is empty is null. Each but the first may begin with `opening`, which is left out. */
export const listed = (texts: string, opening = "") =>
  `pg_catalog.string_to_array(${texts}::text, E'\\x1e${opening}', '')`;

export type Fragments = ReturnType<typeof fragmentsOf>;

export function fragmentsOf({ jobs, stamp }: Pick<Names, "jobs" | "stamp">, mostBytes: number) {
  // The length of a document is known without reading it. Null of one that is too large for this process.
  const readable = (job: string) =>
    `case when pg_catalog.octet_length(${job}) <= ${mostBytes} then ${job} end`;
  const ready = (row: string) => `${row}.status = 'queued' and ${row}.group_key is null`;
  const readyGroup = (row: string) => `${row}.status = 'queued' and ${row}.group_key is not null`;
  // Written so that no index on status fits: with one, the planner reads all running rows for each row that it looks
  // up by key whenever its statistics say that none are running (263 instead of 30,000 acknowledgements/s measured).
  const isActive = (row: string) => `${row}.status || '' = 'active'`;
  // Likewise, where rows are looked up by key: SAQ's own indexes have the queue second, and on Python's tables a plan made
  // while these were empty walked over the whole queue (1,000 completions beside 200,000 kept rows: 17 s -> 11 ms).
  const isOf = (row: string, queue = "$1") => `${row}.queue || '' = ${queue}`;

  // Null of every document where there is no function: it is looked at alone then. Each argument has exactly the type
  // of the function's, so that nobody's function of the same name fits better.
  const stamped = (job: string, charge: string, removed: string, patch: string, owner: string) =>
    stamp
      ? `${stamp}(${job}, ${charge}::int, ${removed}::text[], ${patch}::text, ${owner}::text)`
      : `nullif(${patch}, ${patch})::jsonb`;
  // Two sets of tables in one database may have queues of one name.
  const sweepLock = (name: string) =>
    `${keyspace.sweep}, pg_catalog.hashtext('${jobs.replaceAll("'", "''")} ' || ${name}::text)`;

  // $2 and $3 priorities. One step per priority in use, because in index order the due jobs of priority 5 lie behind all
  // future jobs of priority 0: reading over 500,000 of those took 83 times as long.
  const prioritiesOf = (rows: string) => `step(priority) as (
      (select j.priority from ${jobs} j where j.queue = $1 and ${rows} and j.priority between $2 and $3
        order by j.priority limit 1)
      union all
      select (select j.priority from ${jobs} j where j.queue = $1 and ${rows}
        and j.priority > step.priority and j.priority <= $3 order by j.priority limit 1)
      from step where step.priority is not null)`;
  return { jobs, readable, mostBytes, ready, readyGroup, isActive, isOf, stamped, sweepLock, prioritiesOf };
}
