/** How jobs are stored. Lists go in by column (`unnest`), as arrays or cut from one text, so that one job and a thousand are the same statement. */
import { epoch, listed, terminal } from "./fragments.js";

/**
 * Inserts rows (key, document, priority, group_key, due) under keys that callers chose: V-5.1 to V-5.3. $1 queue.
 *
 * `where not exists` comes first because a refused insert, too, uses up a number of lock_key (D-13); `on conflict`
 * decides what happens when another process is faster. Rows go in by key, so that two flushes of the same keys cannot
 * deadlock. Another queue's row is never moved here (D-14).
 */
export const storing = (jobs: string, rows: string) => `insert into ${jobs} as held
        (key, job, queue, status, priority, group_key, scheduled)
      select g.key, pg_catalog.convert_to(g.document, 'UTF8'), $1, 'queued', g.priority, g.group_key, g.due from ${rows} g
      where not exists (select 1 from ${jobs} b where b.key = g.key
        and (b.queue <> $1 or b.status not in ${terminal} or b.scheduled >= g.due) offset 0)
      order by g.key
      on conflict (key) do update set job = excluded.job, status = 'queued', priority = excluded.priority,
        group_key = excluded.group_key, scheduled = excluded.scheduled, lock_key = excluded.lock_key, expire_at = null
      where held.queue = excluded.queue and held.status in ${terminal} and held.scheduled < excluded.scheduled`;

/**
 * How long a statement waits for a key that somebody's transaction holds, ms; and the same where held keys are looked
 * for one by one.
 */
const keyWaitMs = 100;
const heldKeyWaitMs = 10;

export function enqueueStatements(jobs: string) {
  const given = `unnest($2::text[], $3::text[], $4::int[], $5::text[], $6::bigint[])
    as g(key, document, priority, group_key, scheduled)`;
  const due = `case when g.scheduled = 0 then ${epoch} else g.scheduled end`;
  // One notification per flush, in the same statement: on its own it would be a second round trip, and inside every
  // job's own transaction it would serialise their commits (4,183/s instead of 12,767/s measured). A library whose
  // transaction we are in may number parameters anew, each use its own, so that each must tell its type.
  const notify = "noted as (select pg_catalog.pg_notify($7, 'saq:enqueue') where $7::text is not null)";

  const notice = "select pg_catalog.pg_notify($7, 'saq:enqueue') where $7::text is not null";
  const transaction = "pg_catalog.pg_current_xact_id()::text as transaction";

  // Keys and documents are two texts, cut at a character that neither has (`separator`): an array's literal would
  // escape each quote of a document. Where no job has a priority, a group or a time, those lists are empty, and what is
  // missing is null (50 jobs: 16.4 -> 10.8 us of server CPU and 6.9 -> 4.3 us of client CPU per job, with no conflict
  // to prepare for).
  const inserted = ({ conflict = "", answer = notice }) => `with stored as (
      insert into ${jobs} (key, job, queue, status, priority, group_key, scheduled)
      select g.key, pg_catalog.convert_to(g.document, 'UTF8'), $1, 'queued', coalesce(g.priority, 0), g.group_key,
        coalesce(nullif(g.scheduled, 0), ${epoch})
      from unnest(${listed("$2")}, ${listed("$3")}, $4::int[], $5::text[], $6::bigint[])
        as g(key, document, priority, group_key, scheduled)${conflict})
    ${answer}`;

  // Somebody's open transaction may hold a key. `limited` bounds the wait for it, set inside the statement so that it
  // costs no round trip: others wait for this statement, and held-keys.ts sees to what is held for longer. In the
  // caller's own transaction (`free`) the caller's settings rule.
  const limited = (ms: number) =>
    `, (select pg_catalog.set_config('lock_timeout', '${ms}', true) as timeout offset 0) c where c.timeout is not null`;
  const upsert = (
    wait: string,
    more = "",
  ) => `with given as materialized (select g.*, ${due} as due from ${given}${wait}),
    stored as (${storing(jobs, "given")} returning held.key),
    ${notify}
    select g.key, s.key is not null as stored, b.queue, b.status, (select count(*) from noted) as noted${more}
    from given g left join stored s on s.key = g.key
      left join lateral (select b.queue, b.status from ${jobs} b where b.key = g.key offset 0) b on true`;

  return {
    insert: inserted({}),
    // A generated key meets a row of its own only when the flush is sent again after a lost connection.
    insertAgain: inserted({ conflict: " on conflict (key) do nothing" }),
    upsert: upsert(limited(keyWaitMs)),
    upsertHeld: upsert(limited(heldKeyWaitMs)),
    upsertFree: upsert(""),
    // The same with the number of their transaction, by which the server can be asked later whether it has committed.
    insertTracked: inserted({
      answer: `select ${transaction}, case when $7::text is not null then pg_catalog.pg_notify($7, 'saq:enqueue') end as noted`,
    }),
    upsertTracked: upsert(limited(keyWaitMs), `, ${transaction}`),
    transactionStatus: "select pg_catalog.pg_xact_status($1::text::xid8) as status",
  };
}
