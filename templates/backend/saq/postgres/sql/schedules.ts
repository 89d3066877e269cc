/** The table saq_cron and every statement that uses it. */
import { createHash } from "node:crypto";
import { ensureOwnTable, ownTableName } from "../schema/own-tables.js";
import type { TableSession } from "../table-session.js";
import { insertOrReplace } from "./enqueue.js";
import { epoch, type Statement } from "./fragments.js";

const marker = "create-saq-app: scheduled tasks, version 1";

export type ScheduleStatements = ReturnType<typeof buildScheduleStatements>;

const columns = `queue text not null, name text not null, task text not null, cron text not null,
  timezone text not null, overlap text not null, tick bigint not null, paused boolean not null default false,
  last_run jsonb, updated_at timestamptz not null default now(), primary key (queue, name)`;

/** Creates the table if it is missing and returns its name; null if this role may not create it or may not use it. */
export async function ensureScheduleTable(session: TableSession): Promise<string | null> {
  const name = ownTableName(session.jobsTable, "cron");
  return (await ensureOwnTable(session, { name, marker, columns })) ? name : null;
}

/** Selects the cron jobs that wait for their time, whichever program enqueued them. */
export const waitingCronJobs = (jobs: string): Statement =>
  named(
    "waiting",
    `select key from ${jobs} where queue = $1 and status = 'queued' and scheduled > ${epoch} and key like 'cron:%'
      order by key limit 1000`,
  );

/**
 * Adds a hash of the text to the name: two sets of tables may share a connection, and a name can be prepared only once
 * on each connection.
 */
const named = (name: string, text: string): Statement => ({
  name: `saq_cron_${name}_${createHash("sha1").update(text).digest("hex").slice(0, 8)}`,
  text,
});

export function buildScheduleStatements({ cron, jobs }: { cron: string; jobs: string }) {
  const definitions = `unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
    as g(name, task, cron, timezone, overlap)`;
  const ticksOf = (row: string) => `(${row}.cron, ${row}.timezone, ${row}.overlap)`;
  // A changed definition starts now: ticks that it would have had earlier do not count as missed.
  const register = `insert into ${cron} as existing (queue, name, task, cron, timezone, overlap, tick)
    select $1, g.name, g.task, g.cron, g.timezone, g.overlap, ${epoch} from ${definitions} order by g.name
    on conflict (queue, name) do update set task = excluded.task, cron = excluded.cron, timezone = excluded.timezone,
      overlap = excluded.overlap,
      tick = case when ${ticksOf("existing")} = ${ticksOf("excluded")} then existing.tick else excluded.tick end,
      updated_at = now()
    where existing.task <> excluded.task or ${ticksOf("existing")} <> ${ticksOf("excluded")}`;

  // Ticks that pass while an entry is paused do not count as missed either.
  const pause = `insert into ${cron} as existing (queue, name, task, cron, timezone, overlap, tick, paused)
    select $1, g.name, g.task, g.cron, g.timezone, g.overlap, ${epoch}, $7 from ${definitions}
    on conflict (queue, name) do update set paused = excluded.paused, tick = ${epoch}, updated_at = now()
    where existing.paused <> excluded.paused`;

  // $2 to $7 are the same as in every enqueue; $8 names, $9 crons, $10 zones, $11 overlaps, $12 last ticks that passed,
  // $13 last runs.
  //
  // The entry's row is locked first. A worker that finds it locked leaves the tick to the worker that holds the lock. A
  // pause either comes first, and this statement sees it, or waits for the lock, and then finds the job. Only workers
  // with the definition that was registered last rely on `tick`. A worker with another definition, in a fleet that is
  // being replaced, goes by the job rows alone. A tick in the past is stored to make up for a missed tick, and only if
  // no later tick is known.
  const enqueue = `with given as materialized (select g.*, g.scheduled as due
      from unnest($2::text[], $3::text[], $4::int[], $5::text[], $6::bigint[], $8::text[], $9::text[], $10::text[],
        $11::text[], $12::bigint[], $13::text[])
        as g(key, document, priority, group_key, scheduled, name, cron, timezone, overlap, seen, last_run),
        (select pg_catalog.set_config('lock_timeout', '2000', true) as timeout offset 0) t where t.timeout is not null),
    entry as materialized (select c.name, c.paused, ${ticksOf("c")} = ${ticksOf("g")} as latest,
        c.tick = g.due or (c.tick > g.due and g.due <= ${epoch}) as done
      from given g join ${cron} c on c.queue = $1 and c.name = g.name order by c.name for no key update of c skip locked),
    known as (select g.*, e.paused, e.latest, e.latest and e.done as done, e.name is null
        and exists (select 1 from ${cron} c where c.queue = $1 and c.name = g.name) as busy
      from given g left join entry e on e.name = g.name),
    free as materialized (select * from known where not busy and paused is not true and done is not true),
    stored as (${insertOrReplace(jobs, "free")} returning existing.key),
    recorded as (update ${cron} c set
        tick = greatest(c.tick, k.seen, case when s.key is not null then k.due end),
        last_run = coalesce(k.last_run::jsonb, c.last_run)
      from known k left join stored s on s.key = k.key
      where c.queue = $1 and c.name = k.name and k.latest and k.paused is not true and (
        c.tick < greatest(k.seen, case when s.key is not null then k.due end)
        or k.last_run::jsonb is distinct from coalesce(c.last_run, k.last_run::jsonb))
      returning c.name),
    notified as (select pg_catalog.pg_notify($7, 'saq:enqueue') where $7::text is not null)
    select k.name, k.key, k.busy, k.paused is true as paused, k.done is true as done, s.key is not null as stored,
      b.queue, b.status, (select count(*) from notified) as notified, (select count(*) from recorded) as recorded
    from known k left join stored s on s.key = k.key
      left join lateral (select b.queue, b.status from ${jobs} b where b.key = k.key offset 0) b on true`;

  const statements = {
    register,
    pause,
    enqueue,
    // Paused entries are kept: an entry that comes back, for example after an older worker was started, is still
    // paused.
    deleteUnlisted: `delete from ${cron} where queue = $1 and name <> all($2::text[]) and not paused`,
    list: `select name, task, cron, timezone, overlap, tick, paused, last_run from ${cron} where queue = $1`,
  };
  return Object.fromEntries(Object.entries(statements).map(([name, text]) => [name, named(name, text)])) as {
    [Name in keyof typeof statements]: Statement;
  };
}
