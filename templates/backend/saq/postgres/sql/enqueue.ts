/**
 * The statements that store jobs. Lists are passed by column (`unnest`), as arrays or split from one text, so that one
 * job and a thousand jobs use the same statement.
 */
import { epoch, splitList, terminal } from "./fragments.js";

/**
 * Inserts rows (key, document, priority, group_key, due) under keys that callers chose. $1 queue. A new key is
 * inserted. A finished job of this queue is replaced if the new job is due later. In every other case where the key
 * exists, nothing is stored.
 *
 * `where not exists` comes first, because a refused insert also uses up a number of the sequence of lock_key, which can
 * run out. `on conflict` is for the case that another process is faster. Rows are inserted in key order, so that
 * two flushes with the same keys cannot deadlock. A row of another queue is never moved to this queue.
 */
export const insertOrReplace = (jobs: string, rows: string) => `insert into ${jobs} as existing
        (key, job, queue, status, priority, group_key, scheduled)
      select g.key, pg_catalog.convert_to(g.document, 'UTF8'), $1, 'queued', g.priority, g.group_key, g.due from ${rows} g
      where not exists (select 1 from ${jobs} b where b.key = g.key
        and (b.queue <> $1 or b.status not in ${terminal} or b.scheduled >= g.due) offset 0)
      order by g.key
      on conflict (key) do update set job = excluded.job, status = 'queued', priority = excluded.priority,
        group_key = excluded.group_key, scheduled = excluded.scheduled, lock_key = excluded.lock_key, expire_at = null
      where existing.queue = excluded.queue and existing.status in ${terminal}
        and existing.scheduled < excluded.scheduled`;

/**
 * How long a statement waits for a key that another transaction holds, ms. `heldKeyWaitMs` is for the statement that
 * tries held keys again.
 */
const keyWaitMs = 100;
const heldKeyWaitMs = 10;

export function enqueueStatements(jobs: string) {
  const given = `unnest($2::text[], $3::text[], $4::int[], $5::text[], $6::bigint[])
    as g(key, document, priority, group_key, scheduled)`;
  const due = `case when g.scheduled = 0 then ${epoch} else g.scheduled end`;
  // One notification per flush, in the same statement. A statement of its own would be a second round trip, and one in
  // every job's own transaction would serialise their commits (measured: 4,183/s instead of 12,767/s). In a caller's
  // transaction, the caller's library may give every use of a parameter a new number, so every use must state its type.
  const notify = "notified as (select pg_catalog.pg_notify($7, 'saq:enqueue') where $7::text is not null)";

  const notice = "select pg_catalog.pg_notify($7, 'saq:enqueue') where $7::text is not null";
  const transaction = "pg_catalog.pg_current_xact_id()::text as transaction";

  // Keys and documents are passed as two texts, split at a character that neither has (`separator`): an array literal
  // would escape each quote of a document. If no job has a priority, a group or a time, those lists are empty, and the
  // missing values are null (50 jobs: 16.4 -> 10.8 us of server CPU and 6.9 -> 4.3 us of client CPU per job, without an
  // `on conflict` clause).
  const inserted = ({ conflict = "", answer = notice }) => `with stored as (
      insert into ${jobs} (key, job, queue, status, priority, group_key, scheduled)
      select g.key, pg_catalog.convert_to(g.document, 'UTF8'), $1, 'queued', coalesce(g.priority, 0), g.group_key,
        coalesce(nullif(g.scheduled, 0), ${epoch})
      from unnest(${splitList("$2")}, ${splitList("$3")}, $4::int[], $5::text[], $6::bigint[])
        as g(key, document, priority, group_key, scheduled)${conflict})
    ${answer}`;

  // An open transaction of another client may hold a key. `withLockTimeout` limits the wait for it, because other calls
  // wait for this statement; held-keys.ts handles keys that are held longer. The limit is set inside the statement, so
  // that it costs no round trip. In the caller's own transaction (`upsertInTransaction`) the caller's settings apply.
  const withLockTimeout = (ms: number) =>
    `, (select pg_catalog.set_config('lock_timeout', '${ms}', true) as timeout offset 0) c where c.timeout is not null`;
  const upsert = (
    wait: string,
    more = "",
  ) => `with given as materialized (select g.*, ${due} as due from ${given}${wait}),
    stored as (${insertOrReplace(jobs, "given")} returning existing.key),
    ${notify}
    select g.key, s.key is not null as stored, b.queue, b.status, (select count(*) from notified) as notified${more}
    from given g left join stored s on s.key = g.key
      left join lateral (select b.queue, b.status from ${jobs} b where b.key = g.key offset 0) b on true`;

  return {
    insert: inserted({}),
    // A generated key can conflict only with its own row, when the flush is sent again after a lost connection.
    insertAgain: inserted({ conflict: " on conflict (key) do nothing" }),
    upsert: upsert(withLockTimeout(keyWaitMs)),
    upsertHeld: upsert(withLockTimeout(heldKeyWaitMs)),
    upsertInTransaction: upsert(""),
    // The same, with the number of the transaction: the server can be asked later whether this number has committed.
    insertTracked: inserted({
      answer: `select ${transaction},
        case when $7::text is not null then pg_catalog.pg_notify($7, 'saq:enqueue') end as notified`,
    }),
    upsertTracked: upsert(withLockTimeout(keyWaitMs), `, ${transaction}`),
    transactionStatus: "select pg_catalog.pg_xact_status($1::text::xid8) as status",
  };
}
