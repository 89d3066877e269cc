/** Statements that find and lock free groups, and claim their next jobs. `activate` makes rows of `picked` active. */
import { isAfterStart, startRows } from "../claim-start.js";
import { aloneGroup, epoch, type Fragments, running } from "./fragments.js";

/** What claims of grouped jobs leave out: SQL in which a job has the alias `j`. */
interface Exclusions {
  /** True if a job is of none of the excluded tasks. */
  isOpen: string;
  /** True if a group is not excluded. */
  isFree: (group: string) => string;
}

/** How many waiting jobs of a group are searched for one that is of no excluded task, if its first job is of one. */
const searchedInGroup = 200;

/** What is done with the rows that a claim has picked. */
export interface ClaimParts {
  /** Returns SQL for the bytes of the documents up to this row. */
  sizeSoFar: (job: string) => string;
  /** Makes the rows of `picked` active. */
  activate: string;
}

export const groupStatements = (fragments: Fragments, parts: ClaimParts) =>
  buildGroupStatements(fragments, parts, null);

/**
 * The same without the jobs of some tasks and groups. A paused group is skipped like a busy one, whatever it contains.
 * In `groupHeads`: $8 names of the tasks, $9 the bytes in which a document has its name, $10 the groups; $11 to $16 say
 * where the first jobs begin. In `claimGroups`: $9 the heads that were found. `isOpen` returns SQL that is true if a
 * job is of none of the tasks.
 *
 * Jobs of these tasks count for the first $6, so that a statement never reads a million of them. It also returns the
 * first job of another task (`first_open`: priority, due time, place), the last job that it has read (`last_read`), and
 * whether there may be more (`is_full`).
 */
export function excludingGroupStatements(
  fragments: Fragments,
  claimParts: ClaimParts,
  isOpen: (job: string, names: string, bytes: string) => string,
) {
  const { groupHeads, claimGroups } = buildGroupStatements(fragments, claimParts, {
    isOpen: isOpen("j.job", "$8", "$9"),
    isFree: (group) => `${group} <> all($10::text[])`,
  });
  return { groupHeadsExcluding: groupHeads, claimGroupsExcluding: claimGroups };
}

/** The parts of the statements that differ if some jobs are excluded. */
function partsOf(exclusions: Exclusions | null, { jobs, isOf, readyGroup }: Fragments) {
  const columns = "j.key, j.group_key, j.priority, j.scheduled, j.lock_key";
  const inOrder = "order by j.priority, j.scheduled, j.lock_key";
  const waiting = (group: string) => `from ${jobs} j
        where j.queue = $1 and ${readyGroup("j")} and j.group_key = ${group} and j.priority between $2 and $3`;
  if (!exclusions) {
    return {
      begun: "",
      join: "",
      after: "",
      openColumn: "",
      whereOpen: "",
      mayVisit: "",
      andOpen: "",
      andFree: () => "",
      firstOf: (group: string) => `select ${columns} ${waiting(group)} ${inOrder} limit 1`,
      returned: "",
      nextOf: null,
    };
  }
  const { isOpen, isFree } = exclusions;
  const { begun, join } = startRows(11);
  const position = "array[f.priority::float8, f.scheduled::float8, f.lock_key::float8]";
  const latestFirst = "f.priority desc, f.scheduled desc, f.lock_key desc";
  return {
    begun: `, ${begun}`,
    join,
    after: `and ${isAfterStart(11)}`,
    openColumn: `, ${isOpen} as is_open`,
    whereOpen: "where is_open",
    // While the first jobs are all of excluded tasks, the next statement begins behind them.
    mayVisit: "and exists (select 1 from front f where f.is_open)",
    andOpen: `and ${isOpen}`,
    andFree: (group: string) => `and ${isFree(group)}`,
    firstOf: (group: string) => `select j.key, j.group_key, j.priority, j.scheduled, j.lock_key
        from (select ${columns}, ${isOpen} as is_open ${waiting(group)} ${inOrder} limit ${searchedInGroup}) j
        where j.is_open ${inOrder} limit 1`,
    returned: `, (select count(*) from front) = $6 as is_full,
      (select ${position} from front f where f.is_open
        order by f.priority, f.scheduled, f.lock_key limit 1) as first_open,
      (select ${position} from front f order by ${latestFirst} limit 1) as last_read`,
    // The jobs in front of a head need not be read again.
    nextOf: `(select ${columns} from pg_catalog.unnest($9::text[]) as h(key) cross join lateral (
        select j.* from ${jobs} j where j.key = h.key and ${isOf("j")} and j.status || '' = 'queued'
          and j.group_key = room.group_key and j.priority between $2 and $3 and j.scheduled <= ${epoch} offset 0) j
      where room.free > 0 ${inOrder} limit 1)`,
  };
}

function buildGroupStatements(
  fragments: Fragments,
  { sizeSoFar, activate }: ClaimParts,
  exclusions: Exclusions | null,
) {
  const { jobs, readable, readyGroup, isOf, sweepLock, prioritiesOf } = fragments;
  const parts = partsOf(exclusions, fragments);
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
          and j.scheduled <= ${epoch} ${parts.andOpen} order by j.scheduled, j.lock_key limit ${count}) r
      limit ${count})`;

  // Free groups with their heads. Returns more than the $5 wanted groups, because other workers may have locked some of
  // them. $7 jobs of a group may run at a time.
  //
  // First the statement reads the first $6 jobs in the order, whatever their groups: with many small groups these
  // contain enough free groups, in the exact order (10,000 groups: 15 -> 1 ms measured). But one big group may fill
  // them. Then the statement finds the heads by skipping from group to group, at most 1,000 at a time, from a cursor
  // ($4) that starts over at the end. So neither long groups nor many groups cost more than that. The statement returns
  // at least one row, which says in `reached` where the next walk continues.
  const groupHeads = `with recursive ${prioritiesOf(readyGroup("j"))}${parts.begun},
    front as materialized (
      select r.* from step ${parts.join} cross join lateral (
        select j.key, j.group_key, j.priority, j.scheduled, j.lock_key${parts.openColumn} from ${jobs} j
        where j.queue = $1 and ${readyGroup("j")} and j.priority = step.priority and j.scheduled <= ${epoch}
          ${parts.after}
        order by j.scheduled, j.lock_key limit $6) r limit $6),
    fronts as materialized (
      select h.key, h.group_key, h.priority, h.scheduled, h.lock_key
      from (select distinct on (group_key collate "C") * from front ${parts.whereOpen}
        order by group_key collate "C", priority, scheduled, lock_key) h
      where not ${isBusy("h.group_key")} ${parts.andFree("h.group_key")}),
    visit(group_key) as (
      (select j.group_key from ${jobs} j where j.queue = $1 and ${readyGroup("j")} and j.group_key >= $4
        and (select count(*) from front) = $6 and (select count(*) from fronts) < $5 ${parts.mayVisit}
        order by j.group_key limit 1)
      union all
      select (select j.group_key from ${jobs} j where j.queue = $1 and ${readyGroup("j")}
        and j.group_key > visit.group_key order by j.group_key limit 1)
      from visit where visit.group_key is not null),
    visited as materialized (select group_key from visit where group_key is not null limit 1000),
    heads as (
      select h.* from visited v cross join lateral (${parts.firstOf("v.group_key")}) f
      cross join lateral (
        select f.* where f.scheduled <= ${epoch}
        union all select n.* from ${nextOfGroup("v.group_key", "1")} n where f.scheduled > ${epoch}) h
      where not ${isBusy("v.group_key")} ${parts.andFree("v.group_key")}),
    free as (
      select * from (select * from fronts union select * from heads) f
      order by f.priority, f.scheduled, f.lock_key limit greatest(4 * $5::int, 100))
    select w.reached, f.key, f.group_key${parts.returned}
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
  const nextOfRoom = parts.nextOf ?? nextOfGroup("room.group_key", "greatest(room.free, 0)");
  const claimGroups = `with room as materialized (
      select g.group_key, case when g.group_key = '${aloneGroup}' then 1 else $8::int end - (select count(*) from ${jobs} b
        where b.queue = $1 and b.group_key = g.group_key and b.group_key is not null and b.status in ${running}) as free
      from pg_catalog.unnest($7::text[]) as g(group_key)),
    next as materialized (
      select n.* from room cross join lateral ${nextOfRoom} n
      order by n.priority, n.scheduled, n.lock_key limit $4),
    picked as materialized (
      select r.*, n.ordinal, ${sizeSoFar("r.job")} as bytes
      from (select next.key, row_number() over (order by priority, scheduled, lock_key) as ordinal from next) n
      cross join lateral (select j.ctid as tid, j.key, ${readable("j.job")} as job, j.lock_key, j.scheduled as due from ${jobs} j
        where j.key = n.key and ${isOf("j")} and j.status || '' = 'queued' for update of j skip locked) r),
    ${activate}`;

  return { groupHeads, lockGroups, claimGroups };
}
