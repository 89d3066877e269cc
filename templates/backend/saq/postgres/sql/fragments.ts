/**
 * SQL fragments that several statements share. `epoch` is the database's clock in whole seconds: only this clock
 * decides which jobs are due, stuck or expired.
 */
import { keyspace, type Names } from "../schema/names.js";

export const epoch = "pg_catalog.floor(extract(epoch from now()))::bigint";
/** Whole epoch ms at this moment. */
export const epochMs = "pg_catalog.floor(extract(epoch from clock_timestamp()) * 1000.0)::bigint";
/** Epoch ms at this moment; `epoch` stays the same within a transaction. */
export const clock = "extract(epoch from clock_timestamp())::float8 * 1000::float8";
export const terminal = "('complete', 'failed', 'aborted')";
/** Ended without success: only a few of the finished jobs. */
export const failed = "('failed', 'aborted')";
export const running = "('active', 'aborting')";
/** The last `lock_key` of jobs that are due in the same second. */
export const lastPlace = 2 ** 31 - 1;
/**
 * The `group_key` of rows that must run alone and have no group of their own: all workers together run one job of this
 * group at a time. The document keeps its own `group_key`, which is null.
 */
export const aloneGroup = "saq:alone";

export interface Statement {
  /** The statement is prepared under this name where the connection allows it. */
  name: string;
  text: string;
}

/** Separates the texts of a list. JSON contains this character only escaped (RFC 7464), generated keys never do. */
export const separator = "\x1e";
/** Splits a list into texts; an empty text becomes null. `opening`, with which all but the first text begin, is cut. */
export const splitList = (texts: string, opening = "") =>
  `pg_catalog.string_to_array(${texts}::text, E'\\x1e${opening}', '')`;

export type Fragments = ReturnType<typeof fragmentsOf>;

export function fragmentsOf(
  { jobs, documentFunction }: Pick<Names, "jobs" | "documentFunction">,
  maxBytes: number,
) {
  // Null for a document that is too large for this process. Its length is known without reading it.
  const readable = (job: string) =>
    `case when pg_catalog.octet_length(${job}) <= ${maxBytes} then ${job} end`;
  const ready = (row: string) => `${row}.status = 'queued' and ${row}.group_key is null`;
  const readyGroup = (row: string) => `${row}.status = 'queued' and ${row}.group_key is not null`;
  // Written so that no index on status matches. With such an index, and statistics that say that no rows are running,
  // the planner reads all running rows for each row that it looks up by key (263 instead of 30,000 settled jobs/s).
  const isActive = (row: string) => `${row}.status || '' = 'active'`;
  // Likewise, for rows that are looked up by key. The queue is the second column of SAQ's own indexes. On Python's
  // tables, a plan made while they were empty read the whole queue (1,000 completions beside 200,000 kept rows: 17 s,
  // now 11 ms).
  const isOf = (row: string, queue = "$1") => `${row}.queue || '' = ${queue}`;

  // True if the document's worker is `worker`: as our claims write the member, or as jsonb and Python do. The bytes are
  // searched, because it is cheaper than reading the document as JSON. The id alone is not enough: the history of
  // failed attempts in `meta` has the ids of previous workers.
  const namesWorker = (job: string, worker: string) => {
    const found = (start: string) =>
      `position(pg_catalog.convert_to('${start}' || pg_catalog.to_json(${worker}::text)::text, 'UTF8') in ${job}) > 0`;
    return `(${found('"worker_id":')} or ${found('"worker_id": ')})`;
  };

  // Null for every document if there is no document function: then each row is handled alone. Each argument is cast to
  // exactly the parameter's type, so that no other function of the same name is a better match.
  const editedDocument = (job: string, charge: string, removed: string, patch: string, owner: string) =>
    documentFunction
      ? `${documentFunction}(${job}, ${charge}::int, ${removed}::text[], ${patch}::text, ${owner}::text)`
      : `nullif(${patch}, ${patch})::jsonb`;
  // Includes the table, because two sets of tables in one database may have queues of the same name.
  const sweepLock = (name: string) =>
    `${keyspace.sweep}, pg_catalog.hashtext('${jobs.replaceAll("'", "''")} ' || ${name}::text)`;

  // $2 and $3: lowest and highest priority. One step per priority in use, because in index order the due jobs of
  // priority 5 come after all future jobs of priority 0: reading past 500,000 of those took 83 times as long.
  const prioritiesOf = (rows: string) => `step(priority) as (
      (select j.priority from ${jobs} j where j.queue = $1 and ${rows} and j.priority between $2 and $3
        order by j.priority limit 1)
      union all
      select (select j.priority from ${jobs} j where j.queue = $1 and ${rows}
        and j.priority > step.priority and j.priority <= $3 order by j.priority limit 1)
      from step where step.priority is not null)`;
  return {
    jobs,
    readable,
    maxBytes,
    ready,
    readyGroup,
    isActive,
    isOf,
    namesWorker,
    editedDocument,
    sweepLock,
    prioritiesOf,
  };
}
