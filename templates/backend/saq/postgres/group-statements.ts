/** Which groups are free, and the next jobs of those. `activate` makes the rows of `picked` active. */
import { aloneGroup, epoch, type Fragments, running } from "./fragments.js";

export function groupStatements(
  { jobs, readable, readyGroup, isOf, sweepLock, prioritiesOf }: Fragments,
  activate: string,
) {
  const isBusy = (group: string) => `(select count(*) from (select 1 from ${jobs} b
    where b.queue = $1 and b.group_key = ${group} and b.group_key is not null and b.status in ${running} limit $7) r) >= $7`;

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
    from (select case when count(*) = 1000 then pg_catalog.max(group_key) else '' end as reached from visited) w
    left join free f on true order by f.priority, f.scheduled, f.lock_key`;

  // Never inside the scan of a table: there the lock function would fire on rows that are not picked (D-2). A group
  // whose head somebody's transaction holds stands still, and gives its place in the batch to the next.
  const lockGroups = `select g.group_key from unnest($2::text[], $3::text[]) as g(key, group_key)
    where case when pg_catalog.pg_try_advisory_xact_lock(${sweepLock("$1 || ':' || g.group_key")})
      then exists (select 1 from ${jobs} j where j.key = g.key for update skip locked) end limit $4`;

  // With the groups ($7) locked, a new statement sees what others have committed meanwhile. At most $4 jobs in all, $8
  // of a group at a time. A row that somebody holds may be one that a Python worker is about to claim: the job behind
  // it in its group is not taken instead.
  const claimGroups = `with room as materialized (
      select g.group_key, case when g.group_key = '${aloneGroup}' then 1 else $8::int end - (select count(*) from ${jobs} b
        where b.queue = $1 and b.group_key = g.group_key and b.group_key is not null and b.status in ${running}) as free
      from pg_catalog.unnest($7::text[]) as g(group_key)),
    next as materialized (
      select n.* from room cross join lateral ${nextOfGroup("room.group_key", "greatest(room.free, 0)")} n
      order by n.priority, n.scheduled, n.lock_key limit $4),
    picked as materialized (
      select r.*, n.nth, sum(pg_catalog.octet_length(r.job)) over (order by n.nth) as bytes from (select next.key, row_number() over (order by priority, scheduled, lock_key) as nth from next) n
      cross join lateral (select j.ctid as tid, j.key, ${readable("j.job")} as job, j.lock_key, j.scheduled as due from ${jobs} j
        where j.key = n.key and ${isOf("j")} and j.status || '' = 'queued' for update of j skip locked) r),
    ${activate}`;

  return { groupHeads, lockGroups, claimGroups };
}
