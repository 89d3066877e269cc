/** Every statement of the engine, by name. */
import { createHash } from "node:crypto";
import { claimStatements } from "./claim-statements.js";
import { endStatements } from "./end-statements.js";
import { enqueueStatements } from "./enqueue-statements.js";
import { epoch, fragmentsOf, running, type Statement, terminal } from "./fragments.js";
import { keyspace, type Names } from "./names.js";

export type Statements = ReturnType<typeof buildStatements>;

const clock = "extract(epoch from clock_timestamp())::float8 * 1000";

/** What has no tables in it. */
export const serverStatements = {
  clock: { name: "saq_clock", text: `select ${clock} as ms` },
  vouch: {
    name: "saq_vouch",
    text: `select pg_try_advisory_lock(${keyspace.life}, hashtext($1)) as got`,
  },
  unvouch: { name: "saq_unvouch", text: `select pg_advisory_unlock(${keyspace.life}, hashtext($1))` },
} satisfies Record<string, Statement>;

export function buildStatements({ jobs, stats, stamp }: Names) {
  const fragments = fragmentsOf({ jobs, stamp });
  const { ready, readyGroup, isOf, sweepLock, prioritiesOf } = fragments;
  const ages = (queue: string) => `select worker_id, expire_at >= ${epoch} as alive,
        extract(epoch from now())::float8 - expire_at as overdue, ${clock} as clock from ${stats} where queue_key = ${queue}`;
  // By physical pages: an index on expire_at would cost every finished job an entry. A row that somebody's transaction
  // holds is left for a later pass: waiting for it would hold up the whole sweep.
  const deleteExpired = (
    condition: string,
  ) => `delete from ${jobs} where ctid = any(array(select ctid from ${jobs}
        where ctid >= $1::tid and ctid < $2::tid and status in ${terminal} and expire_at <= ${epoch} ${condition}
        for update skip locked))`;

  const row = "key, queue, status, scheduled, lock_key as token, job as bytes";
  const statements = {
    ...enqueueStatements(jobs),
    ...claimStatements(fragments),
    ...endStatements(fragments),
    hasGrouped: `select exists (select 1 from ${jobs} j where j.queue = $1 and ${readyGroup("j")}) as found`,
    // The first job of each priority, at most: one that is due lies behind no future one of another priority.
    outlook: `with recursive ${prioritiesOf(ready("j"))}
      select (select min(f.scheduled) from step cross join lateral (
          select j.scheduled from ${jobs} j where j.queue = $1 and ${ready("j")} and j.priority = step.priority
          order by j.scheduled limit 1) f)::float8 as due,
        exists (select 1 from ${jobs} j where j.queue = $1 and ${readyGroup("j")}) as grouped,
        exists (select 1 from ${jobs} j where j.queue = $1 and j.status in ${running}) as running`,
    ownedBy: `select key, lock_key as token from ${jobs}
      where queue = $1 and status in ${running} and lock_key = any($2::int[]) and key || '' > $3
      order by key || '' limit 500`,
    // `strange`: the document does not name the worker, so that it has to be looked at. By its bytes, because a poll of
    // many running jobs should not read them all as JSON.
    owners: `select j.key, j.status, j.lock_key as token,
        position(convert_to(to_json(g.owner)::text, 'UTF8') in j.job) = 0 as strange
      from unnest($2::text[], $3::text[]) as g(key, owner)
        cross join lateral (select * from ${jobs} j where j.key = g.key and ${isOf("j")} offset 0) j`,
    // Never waits: whoever has to wait does so without a connection.
    lockRow: `select ${row}, ${clock} as clock from ${jobs} j where key = $1 and ${isOf("j", "$2")} for update nowait`,
    updateRow: `with changed as (update ${jobs} set status = $2, job = coalesce($3, job),
        scheduled = coalesce($4, scheduled), expire_at = case when $5 then ${epoch} + $6::bigint else expire_at end,
        lock_key = coalesce($7, lock_key) where key = $1)
      select pg_notify($8, $9) where $8::text is not null`,
    deleteRow: `with deleted as (delete from ${jobs} where key = $1)
      select pg_notify($2, $3) where $2::text is not null`,
    fetch: `select ${row} from ${jobs} j where key = any($2::text[]) and ${isOf("j")}`,
    list: `select ${row} from ${jobs} where queue = $1 and status = any($2::text[])
      and ($5::boolean is null or status <> 'queued' or (scheduled <= ${epoch}) = $5)
      order by key desc offset $3 limit $4`,
    page: `select ${row} from ${jobs} where queue = $1 and status = any($2::text[]) and key > $3
      order by key limit $4`,
    counts: `select status, scheduled <= ${epoch} as due, count(*)::int as count from ${jobs} where queue = $1
      group by 1, 2`,
    // Answers what a look for dead workers would, as it was before this beat.
    beat: `with beaten as (insert into ${stats} as held (worker_id, stats, expire_at, metadata, queue_key)
        values ($1, $2, ${epoch} + $3::bigint, $4, $5)
        on conflict (worker_id) do update set stats = excluded.stats, expire_at = excluded.expire_at,
          metadata = excluded.metadata, queue_key = excluded.queue_key)
      ${ages("$5")}`,
    retire: `delete from ${stats} where worker_id = $1`,
    workers: `select worker_id, stats, metadata, queue_key, expire_at >= ${epoch} as alive
      from ${stats} where queue_key = $1`,
    ages: ages("$1"),
    isDead: `select pg_try_advisory_xact_lock(${keyspace.life}, hashtext($1)) as dead`,
    lockSweep: `select pg_try_advisory_lock(${sweepLock("$1")}) as got`,
    unlockSweep: `select pg_advisory_unlock(${sweepLock("$1")})`,
    running: `select ${row}, ${clock} as clock from ${jobs} where queue = $1 and status in ${running} and (lock_key, key) > ($2, $3)
      order by lock_key, key limit $4`,
    // What every sweep does, in one statement, unless another sweeper is at it. Answers what is left to do.
    sweep: `with turn as materialized (select pg_try_advisory_xact_lock(${sweepLock("$3")}) as got),
      expired as (${deleteExpired("and (select got from turn)")}),
      old as (delete from ${stats} where ctid = any(array(select ctid from ${stats}
        where (select got from turn) and expire_at < ${epoch} - 60 for update skip locked)))
      select got, (pg_relation_size($4::regclass) / current_setting('block_size')::int)::int as blocks,
        exists (select 1 from ${jobs} j where j.queue = $3 and j.status in ${running}) as running from turn`,
    deleteExpired: deleteExpired(""),
  };
  // A connection may serve queues with other tables: what is prepared under a name is for these.
  const id = createHash("sha1").update(`${jobs} ${stats} ${stamp}`).digest("hex").slice(0, 8);
  return Object.fromEntries(
    Object.entries(statements).map(([name, text]) => [name, { name: `saq_${name}_${id}`, text }]),
  ) as { [Name in keyof typeof statements]: Statement };
}
