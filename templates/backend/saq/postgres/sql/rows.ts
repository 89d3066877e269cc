/** Statements that read and change rows by key, list rows by status, and find running rows. */
import { aloneGroup, clock, epoch, type Fragments, failed, running } from "./fragments.js";

/** Maximum bytes of documents that one statement returns: a job may have megabytes of payload. */
export const maxAnswerBytes = 8 * 1024 * 1024;

/**
 * The columns of a changed row. `g` has the change: status, document (null = as it is), due, keeps (whether the time to
 * keep the row changes), keep (s), token and alone. What is null stays.
 */
export const changedColumns = `status = g.status, job = coalesce(g.document, j.job),
        scheduled = coalesce(g.due, j.scheduled), lock_key = coalesce(g.token, j.lock_key),
        group_key = case when g.alone then coalesce(j.group_key, '${aloneGroup}')
          when not g.alone then nullif(j.group_key, '${aloneGroup}') else j.group_key end,
        expire_at = case when g.keeps then ${epoch} + g.keep else j.expire_at end`;

/** Members of a document that a check of a running job does not need. */
const largeMembers = "'{kwargs,result,error,meta}'";

export function rowStatements({ jobs, isOf, namesWorker, editedDocument, readable, maxBytes }: Fragments) {
  const columns = "key, queue, status, scheduled, token, bytes, size";
  const row = `key, queue, status, scheduled, lock_key as token, ${readable("job")} as bytes, pg_catalog.octet_length(job) as size`;
  // The documents of a list together have at most as many bytes as one may have. Later rows come without a document.
  const withinMaxBytes = (rows: string) => `select key, queue, status, scheduled, token, size,
      case when ordinal = 1 or total <= ${maxBytes} then bytes end as bytes
    from (select r.*, row_number() over () as ordinal,
      sum(pg_catalog.octet_length(r.bytes)) over (rows unbounded preceding) as total from (${rows}) r) l
    order by ordinal`;
  // Not EXISTS, because the planner may hash the whole table for it.
  const exists = (key: string) =>
    `coalesce((select true from ${jobs} e where e.key = ${key} and ${isOf("e")}), false)`;

  // Never waits and never fails for a row that another transaction holds: it returns such a row as `present`, without a
  // key. The document of the first row is returned whatever its size.
  const lockRows = `select requested, key, queue, status, scheduled, token, clock, present,
      case when ordinal = 1 or total <= ${maxAnswerBytes} then bytes end as bytes,
      case when ordinal = 1 or total <= ${maxAnswerBytes} or bytes is null then size end as size
    from (select k.ordinal, k.key as requested, j.*, ${exists("k.key")} as present,
        sum(pg_catalog.octet_length(j.bytes)) over (order by k.ordinal) as total
      from pg_catalog.unnest($2::text[]) with ordinality as k(key, ordinal)
      left join lateral (select ${row}, ${clock} as clock from ${jobs} j
        where j.key = k.key and ${isOf("j")} for update of j skip locked) j on true) r
    order by ordinal`;

  // Returns those of the given keys ($2) whose rows are free or gone by now.
  const freeRows = `select k.key from pg_catalog.unnest($2::text[]) as k(key)
    where not ${exists("k.key")}
      or (select true from ${jobs} j where j.key = k.key and ${isOf("j")} for update of j skip locked)`;

  // Changes rows that are locked already. $2 keys, $3 status, $4 document, $5 scheduled, $6 whether the time to keep
  // the row changes, $7 seconds to keep it, $8 token, $11 whether the job must run alone; $9 channels and $10 payloads
  // of the notifications.
  const updateRows = `with given as materialized (
      select g.*, o.tid from unnest($2::text[], $3::text[], $4::bytea[], $5::bigint[], $6::boolean[], $7::bigint[], $8::int[], $11::boolean[])
        as g(key, status, document, due, keeps, keep, token, alone)
      cross join lateral (select j.ctid as tid from ${jobs} j where j.key = g.key and ${isOf("j")} offset 0) o),
    deleted as (delete from ${jobs} j using given g where j.ctid = g.tid and g.keep < 0),
    changed as (update ${jobs} j set ${changedColumns}
      from given g where j.ctid = g.tid and coalesce(g.keep, 0) >= 0)
    select count(pg_catalog.pg_notify(channel, payload)) from unnest($9::text[], $10::text[]) as n(channel, payload)`;

  return {
    lockRows,
    freeRows,
    updateRows,
    fetch: `select ${row} from ${jobs} j where key = any($2::text[]) and ${isOf("j")}`,
    list: withinMaxBytes(`select ${row} from ${jobs} where queue = $1 and status = any($2::text[])
      and ($5::boolean is null or status <> 'queued' or (scheduled <= ${epoch}) = $5)
      order by key desc offset $3 limit $4`),
    // Reads all running rows, which are few: a search by the primary key would pass every finished job.
    listRunning: withinMaxBytes(`select ${columns} from (
        select ${row} from ${jobs} where queue = $1 and status in ${running} offset 0) j
      where status = any($2::text[]) order by key desc offset $3 limit $4`),
    // Uses the index of failed jobs, which returns the rows of each status in the order of the keys.
    listFailed:
      withinMaxBytes(`select ${columns} from pg_catalog.unnest($2::text[]) as w(wanted) cross join lateral (
        select ${row} from ${jobs} where queue = $1 and status in ${failed} and status = w.wanted
        order by key desc limit $3::bigint + $4::bigint) j
      order by key desc offset $3 limit $4`),
    listAfter: `select ${row} from ${jobs} where queue = $1 and status = any($2::text[]) and key > $3
      order by key limit $4`,
    running: `select key, lock_key as token, status, ${clock} as clock from ${jobs}
      where queue = $1 and status in ${running} and (lock_key, key) > ($2, $3) order by lock_key, key limit $4`,
    // Documents without their large members, in the order of $2, until $3 bytes have been read; the first one is always
    // returned. Null for a document that the server cannot read as a job.
    limits: `select key, queue, token, ${editedDocument("job", "0", largeMembers, "'{}'", "null")}::text as document
      from (select j.*, sum(pg_catalog.octet_length(j.job)) over (order by k.ordinal) as total, k.ordinal
        from pg_catalog.unnest($2::text[]) with ordinality as k(key, ordinal)
        cross join lateral (select key, queue, lock_key as token, job from ${jobs} j
          where j.key = k.key and ${isOf("j")} offset 0) j offset 0) r
      where total <= $3::bigint or total = pg_catalog.octet_length(job)::bigint order by ordinal`,
    // Running jobs whose document names a worker ($2).
    runningOfWorker: `select key, lock_key as token from ${jobs} where queue = $1 and status in ${running}
      and ${namesWorker("job", "$2")}`,
  };
}
