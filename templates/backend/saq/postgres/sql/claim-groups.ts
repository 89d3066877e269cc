/** Statements that find and lock free groups, and claim their next jobs. `activate` makes rows of `picked` active. */
import { aloneGroup, epoch, type Fragments, running } from "./fragments.js";

export function groupStatements(
  { jobs, readable, readyGroup, isOf, sweepLock, prioritiesOf }: Fragments,
  sizeSoFar: (job: string) => string,
  activate: string,
) {
  const isBusy = (group: string) => `(select count(*) from (select 1 from ${jobs} b
    where b.queue = $1 and b.group_key = ${group} and b.group_key is not null and b.status in ${running} limit $7) r) >= $7`;

  // The next due jobs of a group, in order. `groupHeads` needs this only for a group whose first job is not due yet.
  // Usually the first job is due, and it is the head.
  const nextOfGroup = (group: string, count: string) => `(with recursive ${prioritiesOf(
    `${readyGroup("j")} and j.group_key = ${group}`,
  )}
      select r.* from step cross join lateral (
        select j.key, j.group_key, j.priority, j.scheduled, j.lock_key from ${jobs} j
        where j.queue = $1 and ${readyGroup("j")} and j.group_key = ${group} and j.priority = step.priority
          and j.scheduled <= ${epoch} order by j.scheduled, j.lock_key limit ${count}) r limit ${count})`;

  // Free groups with their heads. Returns more than the $5 wanted groups, because other workers may have locked some of
  // them. $7 jobs of a group may run at a time.
  //
  // First the statement reads the first $6 jobs in the order, whatever their groups: with many small groups these
  // contain enough free groups, in the exact order (10,000 groups: 15 -> 1 ms measured). But one big group may fill
  // them. Then the statement finds the heads by skipping from group to group, at most 1,000 at a time, from a cursor
  // ($4) that starts over at the end. So neither long groups nor many groups cost more than that. The statement returns
  // at least one row, which says in `reached` where the next walk continues.
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

  // The lock function is not called inside the scan of a table: there it would also run for rows that are not picked. A
  // group whose head is locked by another transaction is skipped, and the next group takes its place in the batch.
  const lockGroups = `select g.group_key from unnest($2::text[], $3::text[]) as g(key, group_key)
    where case when pg_catalog.pg_try_advisory_xact_lock(${sweepLock("$1 || ':' || g.group_key")})
      then exists (select 1 from ${jobs} j where j.key = g.key for update skip locked) end limit $4`;

  // Runs as a new statement after the groups ($7) were locked, so that it sees what other workers have committed in
  // between. Claims at most $4 jobs in all, and $8 jobs of a group may run at a time. A row that another transaction
  // locks may be a job that a Python worker is about to claim: the next job of its group is not taken instead.
  const claimGroups = `with room as materialized (
      select g.group_key, case when g.group_key = '${aloneGroup}' then 1 else $8::int end - (select count(*) from ${jobs} b
        where b.queue = $1 and b.group_key = g.group_key and b.group_key is not null and b.status in ${running}) as free
      from pg_catalog.unnest($7::text[]) as g(group_key)),
    next as materialized (
      select n.* from room cross join lateral ${nextOfGroup("room.group_key", "greatest(room.free, 0)")} n
      order by n.priority, n.scheduled, n.lock_key limit $4),
    picked as materialized (
      select r.*, n.ordinal, ${sizeSoFar("r.job")} as bytes
      from (select next.key, row_number() over (order by priority, scheduled, lock_key) as ordinal from next) n
      cross join lateral (select j.ctid as tid, j.key, ${readable("j.job")} as job, j.lock_key, j.scheduled as due from ${jobs} j
        where j.key = n.key and ${isOf("j")} and j.status || '' = 'queued' for update of j skip locked) r),
    ${activate}`;

  return { groupHeads, lockGroups, claimGroups };
}
