/** The statements on SAQ's tables, each with the name under which it is prepared. */
import { createHash } from "node:crypto";
import { defaultMaxBytes, maxDocumentBytes } from "../../core/byte-size.js";
import { leaseGraceSeconds } from "../../storage/worker-ids.js";
import { keyspace, type Names } from "../schema/names.js";
import { claimStatements } from "./claim.js";
import { enqueueStatements } from "./enqueue.js";
import { clock, epoch, fragmentsOf, running, type Statement, terminal } from "./fragments.js";
import { pageStatements } from "./pages.js";
import { rowStatements } from "./rows.js";
import { settleStatements } from "./settle.js";

export type Statements = ReturnType<typeof buildStatements>;

/** Statements that name no table. */
export const serverStatements = {
  clock: { name: "saq_clock", text: `select ${clock} as ms` },
  holdLiveness: {
    name: "saq_hold_liveness",
    text: `select pg_catalog.pg_try_advisory_lock(${keyspace.liveness}, pg_catalog.hashtext($1)) as acquired`,
  },
  releaseLiveness: {
    name: "saq_release_liveness",
    text: `select pg_catalog.pg_advisory_unlock(${keyspace.liveness}, pg_catalog.hashtext($1))`,
  },
} satisfies Record<string, Statement>;

export function buildStatements({ jobs, stats, documentFunction }: Names, maxBytes = defaultMaxBytes) {
  const fragments = fragmentsOf({ jobs, documentFunction }, maxDocumentBytes(maxBytes));
  const { ready, readyGroup, isOf, namesWorker, sweepLock, prioritiesOf } = fragments;
  const workerAges = (queue: string) => `select worker_id, expire_at >= ${epoch} as alive,
        extract(epoch from now())::float8 - expire_at::float8 as overdue, ${clock} as clock,
        case when pg_catalog.jsonb_typeof(stats->'graceSeconds'::text) = 'number' then (stats->>'graceSeconds'::text)::float8 end as grace
        from ${stats} where queue_key = ${queue}`;
  // Deletes by physical pages: an index on expire_at would cost one entry for each finished job. A row that another
  // transaction holds is left for a later pass, because waiting for it would delay the whole sweep.
  const deleteExpired = (
    condition: string,
  ) => `delete from ${jobs} where ctid = any(array(select ctid from ${jobs}
        where ctid >= $1::tid and ctid < $2::tid and status in ${terminal} and expire_at <= ${epoch} ${condition}
        for update skip locked))`;

  const statements = {
    ...enqueueStatements(jobs),
    ...claimStatements(fragments),
    ...settleStatements(fragments),
    ...rowStatements(fragments),
    ...pageStatements(fragments),
    hasGrouped: `select exists (select 1 from ${jobs} j where j.queue = $1 and ${readyGroup("j")}) as found`,
    // Reads at most the first job of each priority, so that a due job is not behind the future jobs of another
    // priority.
    nextWork: `with recursive ${prioritiesOf(ready("j"))}
      select (select pg_catalog.min(f.scheduled) from step cross join lateral (
          select j.scheduled from ${jobs} j where j.queue = $1 and ${ready("j")} and j.priority = step.priority
          order by j.scheduled limit 1) f)::float8 as due,
        exists (select 1 from ${jobs} j where j.queue = $1 and ${readyGroup("j")}) as grouped,
        exists (select 1 from ${jobs} j where j.queue = $1 and j.status in ${running}) as running`,
    // The running jobs with these tokens. Reads only the index of running rows, and no document.
    runningByToken: `select key, lock_key as token from ${jobs}
      where queue = $1 and status in ${running} and lock_key = any($2::int[]) limit 10000`,
    // `unverified`: the document does not name the worker, so that the caller has to read it. Only rows that were
    // written since the previous check are searched ($4: the version of the row at that check), because the documents
    // of a hundred jobs may have a hundred megabytes.
    owners: `select j.key, j.status, j.token, j.version,
        case when j.version is not distinct from g.version then false
          else not ${namesWorker("j.job", "g.owner")} end as unverified
      from unnest($2::text[], $3::text[], $4::text[]) as g(key, owner, version)
        cross join lateral (select j.key, j.status, j.lock_key as token, j.job, j.ctid::text || ' '::text || j.xmin::text as version
          from ${jobs} j where j.key = g.key and ${isOf("j")} offset 0) j`,
    counts: `select status, scheduled <= ${epoch} as due, count(*)::int as count from ${jobs} where queue = $1
      group by 1, 2`,
    // Returns the rows that `workerAges` would have returned before this update.
    saveWorker: `with saved as (insert into ${stats} (worker_id, stats, expire_at, metadata, queue_key)
        values ($1, $2, ${epoch} + $3::bigint, $4, $5)
        on conflict (worker_id) do update set stats = excluded.stats, expire_at = excluded.expire_at,
          metadata = excluded.metadata, queue_key = excluded.queue_key)
      ${workerAges("$5")}`,
    removeWorker: `delete from ${stats} where worker_id = $1`,
    workers: `select worker_id, stats, metadata, queue_key, expire_at >= ${epoch} as alive
      from ${stats} where queue_key = $1`,
    workerAges: workerAges("$1"),
    // True also when the worker's row is gone. Callers act on this only when they have seen no valid row for long
    // enough.
    isLeaseOver: `select not exists (select 1 from ${stats} where worker_id = $1
      and expire_at >= ${epoch} - ${leaseGraceSeconds}) as dead`,
    isDead: `select pg_catalog.pg_try_advisory_xact_lock(${keyspace.liveness}, pg_catalog.hashtext($1)) as dead`,
    lockSweep: `select pg_catalog.pg_try_advisory_lock(${sweepLock("$1")}) as acquired`,
    unlockSweep: `select pg_catalog.pg_advisory_unlock(${sweepLock("$1")})`,
    // The part that each sweep does, in one statement, unless another sweeper is at work. Returns what is left to do.
    sweep: `with sweep_lock as materialized (select pg_catalog.pg_try_advisory_xact_lock(${sweepLock("$3")}) as acquired),
      expired as (${deleteExpired("and (select acquired from sweep_lock)")}),
      old as (delete from ${stats} where ctid = any(array(select ctid from ${stats}
        where (select acquired from sweep_lock) and expire_at < ${epoch} - 60 for update skip locked)))
      select acquired,
        (pg_catalog.pg_relation_size($4::regclass) / pg_catalog.current_setting('block_size')::int)::int as pages,
        exists (select 1 from ${jobs} j where j.queue = $3 and j.status in ${running}) as running from sweep_lock`,
    deleteExpired: deleteExpired(""),
  };
  // A connection may serve queues with other tables: the hash gives their prepared statements other names.
  const id = createHash("sha1")
    .update(`${jobs} ${stats} ${documentFunction} ${maxBytes}`)
    .digest("hex")
    .slice(0, 8);
  return Object.fromEntries(
    Object.entries(statements).map(([name, text]) => [name, { name: `saq_${name}_${id}`, text }]),
  ) as { [Name in keyof typeof statements]: Statement };
}
