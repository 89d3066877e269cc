/**
 * Every statement of the engine, by name. Lists go in by column (`unnest`), as arrays or cut from one text, so that one
 * job and a thousand are the same statement. `epoch` is the database's clock in whole seconds: it alone decides what is due, stuck or
 * expired (5.2).
 */
import { createHash } from "node:crypto";
import { claimedEnding, freshClaimed, freshDue } from "./ending.js";
import { keyspace, type Names } from "./names.js";

export const epoch = "floor(extract(epoch from now()))::bigint";
const epochMs = "floor(extract(epoch from clock_timestamp()) * 1000)::bigint";
const terminal = "('complete', 'failed', 'aborted')";
const running = "('active', 'aborting')";

export interface Statement {
  /** Prepared under this name where the connection allows it. */
  name: string;
  text: string;
}

export type Statements = ReturnType<typeof buildStatements>;

/** Between the texts of a list: JSON has no such character outside of escapes (RFC 7464), nor have generated keys. */
export const separator = "\x1e";
/** A list of texts; what is empty is null. */
const listed = (texts: string) => `string_to_array(${texts}::text, E'\\x1e', '')`;

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

/**
 * Inserts rows (key, document, priority, group_key, due) under keys that callers chose: V-5.1 to V-5.3. $1 queue.
 *
 * `where not exists` comes first because a refused insert, too, uses up a number of lock_key (D-13); `on conflict`
 * decides what happens when another process is faster. Rows go in by key, so that two flushes of the same keys cannot
 * deadlock. Another queue's row is never moved here (D-14).
 */
export const storing = (jobs: string, rows: string) => `insert into ${jobs} as held
        (key, job, queue, status, priority, group_key, scheduled)
      select g.key, convert_to(g.document, 'UTF8'), $1, 'queued', g.priority, g.group_key, g.due from ${rows} g
      where not exists (select 1 from ${jobs} b where b.key = g.key
        and (b.queue <> $1 or b.status not in ${terminal} or b.scheduled >= g.due) offset 0)
      order by g.key
      on conflict (key) do update set job = excluded.job, status = 'queued', priority = excluded.priority,
        group_key = excluded.group_key, scheduled = excluded.scheduled, lock_key = excluded.lock_key, expire_at = null
      where held.queue = excluded.queue and held.status in ${terminal} and held.scheduled < excluded.scheduled`;

export function buildStatements({ jobs, stats, stamp }: Names) {
  const ready = (row: string) => `${row}.status = 'queued' and ${row}.group_key is null`;
  const readyGroup = (row: string) => `${row}.status = 'queued' and ${row}.group_key is not null`;
  const isBusy = (group: string) => `(select count(*) from (select 1 from ${jobs} b
    where b.queue = $1 and b.group_key = ${group} and b.group_key is not null and b.status in ${running} limit $7) r) >= $7`;
  // Written so that no index on status fits: with one, the planner reads all running rows for each row that it looks
  // up by key whenever its statistics say that none are running (263 instead of 30,000 acknowledgements/s measured).
  const isActive = (row: string) => `${row}.status || '' = 'active'`;

  // Null of every document where there is no function: it is looked at alone then.
  const stamped = (job: string, charge: string, removed: string, patch: string, owner: string) =>
    stamp
      ? `${stamp}(${job}, ${charge}, ${removed}, ${patch}, ${owner})`
      : `nullif(${patch}, ${patch})::jsonb`;
  // Two sets of tables in one database may have queues of one name.
  const sweepLock = (name: string) =>
    `${keyspace.sweep}, hashtext('${jobs.replaceAll("'", "''")} ' || ${name})`;

  const given = `unnest($2::text[], $3::text[], $4::int[], $5::text[], $6::bigint[])
    as g(key, document, priority, group_key, scheduled)`;
  const due = `case when g.scheduled = 0 then ${epoch} else g.scheduled end`;
  // One notification per flush, in the same statement: on its own it would be a second round trip, and inside every
  // job's own transaction it would serialise their commits (4,183/s instead of 12,767/s measured). A library whose
  // transaction we are in may number parameters anew, each use its own, so that each must tell its type.
  const notify = "noted as (select pg_notify($7, 'saq:enqueue') where $7::text is not null)";

  // Keys and documents are two texts, cut at a character that neither has (`separator`): an array's literal would
  // escape each quote of a document. Where no job has a priority, a group or a time, those lists are empty, and what is
  // missing is null (50 jobs: 16.4 -> 10.8 us of server CPU and 6.9 -> 4.3 us of client CPU per job, with no conflict
  // to prepare for).
  const inserted = (conflict: string) => `with stored as (
      insert into ${jobs} (key, job, queue, status, priority, group_key, scheduled)
      select g.key, convert_to(g.document, 'UTF8'), $1, 'queued', coalesce(g.priority, 0), g.group_key,
        coalesce(nullif(g.scheduled, 0), ${epoch})
      from unnest(${listed("$2")}, ${listed("$3")}, $4::int[], $5::text[], $6::bigint[])
        as g(key, document, priority, group_key, scheduled)${conflict})
    select pg_notify($7, 'saq:enqueue') where $7::text is not null`;

  // Somebody's open transaction may hold a key. `limited` bounds the wait for it to 2 s, set inside the statement so
  // that it costs no round trip; in the caller's own transaction (`free`) the caller's settings rule.
  const limited =
    ", (select set_config('lock_timeout', '2000', true) as timeout offset 0) c where c.timeout is not null";
  const upsert = (
    wait: string,
  ) => `with given as materialized (select g.*, ${due} as due from ${given}${wait}),
    stored as (${storing(jobs, "given")} returning held.key),
    ${notify}
    select g.key, s.key is not null as stored, b.queue, b.status, (select count(*) from noted) as noted
    from given g left join stored s on s.key = g.key
      left join lateral (select b.queue, b.status from ${jobs} b where b.key = g.key offset 0) b on true`;

  // The rows of `picked` (tid, key, job, lock_key, due, nth) become active: $5 token, $6 patch of the document. A fresh
  // document is answered as it was, with `started`: the caller knows what it ends with now. One that
  // cannot be stamped, or is no job of this queue and key, keeps its bytes and is answered without a document: the
  // caller owns it by its token and decides about it.
  // The patch is a subquery of its own so that it is put together once per statement and not for every row (a claim
  // of 500: 19.0 -> 17.5 us of server CPU per row).
  const startedPatch = "(select patch from moment)";
  const activate = `moment as materialized (
      select ms, ($6::jsonb || jsonb_build_object('started', ms, 'touched', ms))::text as patch,
        convert_to(${claimedEnding("($6::jsonb->'worker_id')::text", "ms")}, 'UTF8') as ending
      from (select ${epochMs} as ms offset 0) m)
    update ${jobs} j set status = 'active', lock_key = $5, scheduled = s.scheduled,
      job = coalesce(s.fresh, convert_to(s.document, 'UTF8'), j.job)
    from (select p.tid, p.key, p.nth, p.lock_key, p.due,
        case when f.due is not null then encode(p.job, 'escape')
          when d.document->>'queue' = $1 and d.document->>'key' = p.key
          and jsonb_typeof(d.document->'function') = 'string' then d.document::text end as document,
        case when f.due is not null then ${freshClaimed("p.job", "(select ending from moment)")} end as fresh,
        coalesce(f.due, floor((d.document->>'scheduled')::numeric)::bigint, 0) as scheduled
      from picked p cross join lateral (select ${freshDue("p.job", "p.due")} as due offset 0) f
      cross join lateral (select case when f.due is null
        then ${stamped("p.job", "1", "'{}'", startedPatch, "null")} end as document offset 0) d offset 0) s
    where j.ctid = s.tid
    returning j.key, s.nth::int, s.lock_key as place, s.due, s.document,
      case when s.fresh is not null then (select ms from moment) end as started`;

  // $2 and $3 priorities. One step per priority in use, because in index order the due jobs of priority 5 lie behind all
  // future jobs of priority 0: reading over 500,000 of those took 83 times as long.
  const prioritiesOf = (rows: string) => `step(priority) as (
      (select j.priority from ${jobs} j where j.queue = $1 and ${rows} and j.priority between $2 and $3
        order by j.priority limit 1)
      union all
      select (select j.priority from ${jobs} j where j.queue = $1 and ${rows}
        and j.priority > step.priority and j.priority <= $3 order by j.priority limit 1)
      from step where step.priority is not null)`;
  // $1 queue, $2 and $3 priorities, $4 limit.
  const claim = `with recursive ${prioritiesOf(ready("j"))},
    picked as materialized (
      select r.*, row_number() over () as nth from step cross join lateral (
        select j.ctid as tid, j.key, j.job, j.lock_key, j.scheduled as due from ${jobs} j
        where j.queue = $1 and ${ready("j")} and j.priority = step.priority and j.scheduled <= ${epoch}
        order by j.scheduled, j.lock_key limit $4 for update of j skip locked) r
      limit $4),
    ${activate}`;

  // The next jobs of a group, in order. Of a group whose first one is due, the usual one, that is the head at once.
  const nextOfGroup = (group: string, count: string) => `(with recursive ${prioritiesOf(
    `${readyGroup("j")} and j.group_key = ${group}`,
  )}
      select r.* from step cross join lateral (
        select j.key, j.group_key, j.priority, j.scheduled, j.lock_key from ${jobs} j
        where j.queue = $1 and ${readyGroup("j")} and j.group_key = ${group} and j.priority = step.priority
          and j.scheduled <= ${epoch} order by j.scheduled, j.lock_key limit ${count}) r limit ${count})`;

  // Free groups with their heads, more than the $5 wanted: others may have locked some of them. $7 jobs of a group may run at a time.
  //
  // First the $6 jobs that come first, whatever their groups: with many small groups these give free ones enough, in
  // the exact order (10,000 groups: 15 -> 1 ms measured). A big group may fill them, though. Then the heads are found
  // by skipping from group to group, at most 1,000 a time, from a cursor ($4) that goes round, so that neither long
  // nor many groups cost more than that. One row at least is answered: it says how far the walk came.
  const groupHeads = `with recursive ${prioritiesOf(readyGroup("j"))},
    front as materialized (
      select r.* from step cross join lateral (
        select j.key, j.group_key, j.priority, j.scheduled, j.lock_key from ${jobs} j
        where j.queue = $1 and ${readyGroup("j")} and j.priority = step.priority and j.scheduled <= ${epoch}
        order by j.scheduled, j.lock_key limit $6) r limit $6),
    fronts as materialized (
      select * from (select distinct on (group_key collate "C") * from front
        order by group_key collate "C", priority, scheduled, lock_key) h
      where not ${isBusy("h.group_key")}),
    visit(group_key) as (
      (select j.group_key from ${jobs} j where j.queue = $1 and ${readyGroup("j")} and j.group_key >= $4
        and (select count(*) from front) = $6 and (select count(*) from fronts) < $5
        order by j.group_key limit 1)
      union all
      select (select j.group_key from ${jobs} j where j.queue = $1 and ${readyGroup("j")}
        and j.group_key > visit.group_key order by j.group_key limit 1)
      from visit where visit.group_key is not null),
    visited as materialized (select group_key from visit where group_key is not null limit 1000),
    heads as (
      select h.* from visited v cross join lateral (
        select j.key, j.group_key, j.priority, j.scheduled, j.lock_key from ${jobs} j
        where j.queue = $1 and ${readyGroup("j")} and j.group_key = v.group_key and j.priority between $2 and $3
        order by j.priority, j.scheduled, j.lock_key limit 1) f
      cross join lateral (
        select f.* where f.scheduled <= ${epoch}
        union all select n.* from ${nextOfGroup("v.group_key", "1")} n where f.scheduled > ${epoch}) h
      where not ${isBusy("v.group_key")}),
    free as (
      select * from (select * from fronts union select * from heads) f
      order by f.priority, f.scheduled, f.lock_key limit greatest(4 * $5::int, 100))
    select w.reached, f.key, f.group_key
    from (select case when count(*) = 1000 then max(group_key) else '' end as reached from visited) w
    left join free f on true order by f.priority, f.scheduled, f.lock_key`;

  // Never inside the scan of a table: there the lock function would fire on rows that are not picked (D-2). A group
  // whose head somebody's transaction holds stands still, and gives its place in the batch to the next.
  const lockGroups = `select g.group_key from unnest($2::text[], $3::text[]) as g(key, group_key)
    where case when pg_try_advisory_xact_lock(${sweepLock("$1 || ':' || g.group_key")})
      then exists (select 1 from ${jobs} j where j.key = g.key for update skip locked) end limit $4`;

  // With the groups ($7) locked, a new statement sees what others have committed meanwhile. At most $4 jobs in all, $8
  // of a group at a time. A row that somebody holds may be one that a Python worker is about to claim: the job behind
  // it in its group is not taken instead.
  const claimGroups = `with room as materialized (
      select g.group_key, $8::int - (select count(*) from ${jobs} b
        where b.queue = $1 and b.group_key = g.group_key and b.group_key is not null and b.status in ${running}) as free
      from unnest($7::text[]) as g(group_key)),
    next as materialized (
      select n.* from room cross join lateral ${nextOfGroup("room.group_key", "greatest(room.free, 0)")} n
      order by n.priority, n.scheduled, n.lock_key limit $4),
    picked as materialized (
      select r.*, n.nth from (select next.key, row_number() over (order by priority, scheduled, lock_key) as nth from next) n
      cross join lateral (select j.ctid as tid, j.key, j.job, j.lock_key, j.scheduled as due from ${jobs} j
        where j.key = n.key and j.queue = $1 and j.status || '' = 'queued' for update of j skip locked) r),
    ${activate}`;

  // Owned writes (5.2): only an active row that still carries the token of the claim and, because Python takes a job over
  // without changing the token, a document that names the worker. SKIP LOCKED, so that a row which
  // somebody's transaction holds does not hold up the rest of the batch; what is missing from the answer is looked at
  // one by one.
  //
  // A subquery finds the row, so that the planner cannot turn the join round, and it is written by its place (ctid),
  // which the lock keeps. Planned while the table was empty and analysed, a join by key walked over the whole primary
  // key, for as long as the connection lived (800 -> 3,500 round trips/s at 50 in flight). A row that changed between
  // the statement's snapshot and its lock is elsewhere by then, and comes as one that is missing.
  const owned = `select j.ctid as tid, j.job from ${jobs} j
        where j.key = g.key and j.queue = $1 and ${isActive("j")} and j.lock_key = g.token for update of j skip locked`;
  // `settleAndTell` ($12 what is told of an end that is awaited, $13 on which channel) is a statement of its own, so that batches that nobody
  // waits for pay nothing for it.
  const settleWith = ({ columns = "", names = "", returned = "", told = "" }) => `with given as materialized (
      select * from unnest($2::text[], $3::int[], $4::int[], $5::text[], $6::text[], $7::text[], $8::int[], $9::bigint[],
        $10::bigint[], $11::text[]${columns}) as g(key, token, place, status, patch, removed, charge, keep, due, owner${names})),
    owned as materialized (
      select g.*, o.* from given g cross join lateral (${owned}) o),
    stamped as materialized (
      select o.*, ${stamped("o.job", "o.charge", "o.removed::text[]", "o.patch", "o.owner")}::text as document from owned o),
    deleted as (delete from ${jobs} j using stamped s where j.ctid = s.tid and s.keep < 0 and s.document is not null
      returning j.key${returned}),
    kept as (update ${jobs} j set status = s.status, job = convert_to(s.document, 'UTF8'),
        expire_at = case when s.status <> 'queued' then ${epoch} + s.keep end,
        scheduled = case when s.status = 'queued' then s.due else j.scheduled end,
        lock_key = case when s.status = 'queued' then s.place else j.lock_key end
      from stamped s where j.ctid = s.tid and coalesce(s.keep, 0) >= 0 and s.document is not null
      returning j.key${returned})
    select key${told} from (select * from deleted union all select * from kept) as ended`;
  const settle = settleWith({});
  const settleAndTell = settleWith({
    columns: ", $12::text[], $13::text[]",
    names: ", told, channel",
    returned: ", s.told, s.channel",
    told: ", case when told is not null then pg_notify(channel, told) end as told",
  });

  // Completions of documents whose ending the claim wrote and nobody has changed since, which the comparison proves: they
  // lose the passing part of it and gain the patch. $2 keys, $3 which claim each is of, $4 patches, $5 seconds to keep,
  // each a list in one text; per claim $6 token, $7 ending, $8 bytes of it that pass. Answers the places of those that
  // were written, unless that is all $9.
  const completeWith = ({ columns = "", names = "", returned = "", told = "", count = "" }) => `with kept as (
      update ${jobs} j set status = 'complete', expire_at = (select ${epoch}) + o.keep,
        job = substr(o.job, 1, octet_length(o.job) - o.passing) || convert_to(o.patch, 'UTF8')
      from (select g.*, ($7::bytea[])[g.claim] as ending, ($8::int[])[g.claim] as passing, o.*
        from (select *, ($6::int[])[claim] as token
          from unnest(${listed("$2")}, ${listed("$3")}::int[], ${listed("$4")}, ${listed("$5")}::bigint[]${columns})
            with ordinality as u(key, claim, patch, keep${names}, nth)) g
        cross join lateral (${owned}) o offset 0) o
      where j.ctid = o.tid and substr(o.job, octet_length(o.job) - octet_length(o.ending) + 1) = o.ending
      returning o.nth${returned})${told}
    select case when count(*) < $9 then coalesce(string_agg(nth::text, ','), '') end as written${count} from kept`;
  const complete = completeWith({});
  const completeAndTell = completeWith({
    columns: ", $10::text[], $11::text[]",
    names: ", told, channel",
    returned: ", o.told, o.channel",
    told: `,
    told as materialized (select pg_notify(channel, told) from kept where told is not null)`,
    count: ", (select count(*) from told) as told",
  });

  const touch = `with given as materialized (
      select * from unnest($2::text[], $3::int[], $4::text[], $5::text[], $6::text[]) as g(key, token, patch, removed, owner)),
    owned as materialized (
      select g.*, o.* from given g cross join lateral (${owned}) o),
    stamped as materialized (select o.tid, ${stamped("o.job", "0", "o.removed::text[]", "o.patch", "o.owner")}::text as document from owned o)
    update ${jobs} j set job = convert_to(s.document, 'UTF8') from stamped s
    where j.ctid = s.tid and s.document is not null returning j.key`;

  const ages = (queue: string) => `select worker_id, expire_at >= ${epoch} as alive,
        extract(epoch from now())::float8 - expire_at as overdue from ${stats} where queue_key = ${queue}`;
  // By physical pages: an index on expire_at would cost every finished job an entry. A row that somebody's transaction
  // holds is left for a later pass: waiting for it would hold up the whole sweep.
  const deleteExpired = (
    condition: string,
  ) => `delete from ${jobs} where ctid = any(array(select ctid from ${jobs}
        where ctid >= $1::tid and ctid < $2::tid and status in ${terminal} and expire_at <= ${epoch} ${condition}
        for update skip locked))`;

  const row = "key, queue, status, scheduled, lock_key as token, job as bytes";
  const statements = {
    insert: inserted(""),
    // A generated key meets a row of its own only when the flush is sent again after a lost connection.
    insertAgain: inserted(" on conflict (key) do nothing"),
    upsert: upsert(limited),
    upsertFree: upsert(""),
    claim,
    groupHeads,
    lockGroups,
    claimGroups,
    settle,
    settleAndTell,
    complete,
    completeAndTell,
    touch,
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
        cross join lateral (select * from ${jobs} j where j.key = g.key and j.queue = $1 offset 0) j`,
    // Never waits: whoever has to wait does so without a connection.
    lockRow: `select ${row}, ${clock} as clock from ${jobs} where key = $1 and queue = $2 for update nowait`,
    updateRow: `with changed as (update ${jobs} set status = $2, job = coalesce($3, job),
        scheduled = coalesce($4, scheduled), expire_at = case when $5 then ${epoch} + $6::bigint else expire_at end,
        lock_key = coalesce($7, lock_key) where key = $1)
      select pg_notify($8, $9) where $8::text is not null`,
    deleteRow: `with deleted as (delete from ${jobs} where key = $1)
      select pg_notify($2, $3) where $2::text is not null`,
    fetch: `select ${row} from ${jobs} where queue = $1 and key = any($2::text[])`,
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
