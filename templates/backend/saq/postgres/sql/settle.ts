/** The statements that record the ends of attempts, and heartbeats: changes by the worker that owns the row. */
import { epoch, type Fragments, splitList } from "./fragments.js";

export function settleStatements({ jobs, isActive, isOf, namesWorker, editedDocument }: Fragments) {
  // Owned writes: only an active row is changed that still has the token of the claim and whose document names the
  // worker. The token is not enough, because Python takes a job over without changing it. SKIP LOCKED, so that a row
  // which another transaction has locked does not delay the rest of the batch; rows that are missing from the answer
  // are decided one by one.
  //
  // A subquery finds the row, so that the planner cannot reverse the join. The row is then written by its place (ctid),
  // which the lock keeps. A join by key that was planned while the table was empty and analysed read the whole primary
  // key, for as long as the connection lived (800 -> 3,500 round trips/s with 50 in flight). A row that changed between
  // the statement's snapshot and its lock has another place by then, and counts as missing.
  const owned = `select j.ctid as tid, j.job from ${jobs} j
        where j.key = g.key and ${isOf("j")} and ${isActive("j")} and j.lock_key = g.token for update of j skip locked`;
  // `settleAndNotify` also notifies the processes that wait for an end ($12 payload, $13 channel). It is a statement of
  // its own, so that batches that nobody waits for do not pay for it.
  const settleWith = ({
    columns = "",
    names = "",
    returned = "",
    notify = "",
  }) => `with given as materialized (
      select * from unnest($2::text[], $3::int[], $4::int[], $5::text[], $6::text[], $7::text[], $8::int[], $9::bigint[],
        $10::bigint[], $11::text[]${columns}) as g(key, token, place, status, patch, removed, charge, keep, due, owner${names})),
    owned as materialized (
      select g.*, o.* from given g cross join lateral (${owned}) o),
    edited as materialized (
      select o.*, ${editedDocument("o.job", "o.charge", "o.removed::text[]", "o.patch", "o.owner")}::text as document
      from owned o),
    deleted as (delete from ${jobs} j using edited s where j.ctid = s.tid and s.keep < 0 and s.document is not null
      returning j.key${returned}),
    kept as (update ${jobs} j set status = s.status, job = pg_catalog.convert_to(s.document, 'UTF8'),
        expire_at = case when s.status <> 'queued' then ${epoch} + s.keep end,
        scheduled = case when s.status = 'queued' then s.due else j.scheduled end,
        lock_key = case when s.status = 'queued' then s.place else j.lock_key end
      from edited s where j.ctid = s.tid and coalesce(s.keep, 0) >= 0 and s.document is not null
      returning j.key${returned})
    select key${notify} from (select * from deleted union all select * from kept) as ended`;
  const settle = settleWith({});
  const settleAndNotify = settleWith({
    columns: ", $12::text[], $13::text[]",
    names: ", payload, channel",
    returned: ", s.payload, s.channel",
    notify: ", case when payload is not null then pg_catalog.pg_notify(channel, payload) end as notified",
  });

  // Completions of documents whose suffix the claim wrote and nobody has changed since, which the comparison proves.
  // The patch takes the place of the `replaced` part of the suffix. Lists in one text: $2 keys, $3 the position of each
  // job's claim, $4 patches, $5 seconds to keep the row. Arrays with one item per claim: $6 tokens, $7 suffixes, $8
  // bytes of their `replaced` parts. $9 number of completions. Returns the positions of those that were written, or
  // null if all were.
  const completeWith = ({
    columns = "",
    names = "",
    returned = "",
    notify = "",
    count = "",
  }) => `with kept as (
      update ${jobs} j set status = 'complete', expire_at = (select ${epoch}) + o.keep,
        job = pg_catalog.substr(o.job, 1, pg_catalog.octet_length(o.job) - o.replaced)
          || pg_catalog.convert_to(o.patch, 'UTF8')
      from (select g.*, ($7::bytea[])[g.claim] as suffix, ($8::int[])[g.claim] as replaced, o.*
        from (select *, ($6::int[])[claim] as token
          from unnest(${splitList("$2")}, ${splitList("$3")}::int[], ${splitList("$4", "{")}, ${splitList("$5")}::bigint[]${columns})
            with ordinality as u(key, claim, patch, keep${names}, ordinal)) g
        cross join lateral (${owned}) o offset 0) o
      where j.ctid = o.tid
        and pg_catalog.substr(o.job, pg_catalog.octet_length(o.job) - pg_catalog.octet_length(o.suffix) + 1) = o.suffix
      returning o.ordinal${returned})${notify}
    select case when count(*) < $9 then coalesce(pg_catalog.string_agg(ordinal::text, ','), '') end as written${count}
    from kept`;
  const complete = completeWith({});
  const completeAndNotify = completeWith({
    columns: ", $10::text[], $11::text[]",
    names: ", payload, channel",
    returned: ", o.payload, o.channel",
    notify: `,
    notified as materialized (select pg_catalog.pg_notify(channel, payload) from kept where payload is not null)`,
    count: ", (select count(*) from notified) as notified",
  });

  // The same completions for rows that are not kept. Parameters as above, without patches and seconds: $4 tokens, $5
  // suffixes, $6 number of completions. Deleting is the cheapest end: it writes no new row and no index entry.
  const completeAndDelete = `with deleted as (
      delete from ${jobs} j
      using (select g.*, ($5::bytea[])[g.claim] as suffix, o.*
        from (select *, ($4::int[])[claim] as token
          from unnest(${splitList("$2")}, ${splitList("$3")}::int[]) with ordinality as u(key, claim, ordinal)) g
        cross join lateral (${owned}) o offset 0) o
      where j.ctid = o.tid
        and pg_catalog.substr(o.job, pg_catalog.octet_length(o.job) - pg_catalog.octet_length(o.suffix) + 1) = o.suffix
      returning o.ordinal)
    select case when count(*) < $6 then coalesce(pg_catalog.string_agg(ordinal::text, ','), '') end as written
    from deleted`;

  // Reads the present state of the rows of these ends, without a lock. $2 keys, $3 workers, $4 the transactions in
  // which tasks have finished their jobs themselves. `unverified`: the document does not name the worker, so the end
  // must be decided while the row is locked.
  const recorded = `select g.ordinal::int, j.status, j.lock_key as token,
      g.transaction is not null and coalesce(pg_catalog.pg_xact_status(g.transaction::xid8), '') = 'committed' as committed,
      g.transaction is null and not ${namesWorker("j.job", "g.owner")} as unverified
    from unnest($2::text[], $3::text[], $4::text[]) with ordinality as g(key, owner, transaction, ordinal)
      left join lateral (select * from ${jobs} j where j.key = g.key and ${isOf("j")} offset 0) j on true`;

  // A new `meta` ($7) replaces the stored one, except for the limits of the run (`keepRunLimits` in core/job-meta.ts).
  // Another process may have written them since the claim, so the worker does not know them. The document function
  // reads them, because it returns null where a cast to jsonb would fail.
  const patchWithLimits = `case when pg_catalog.jsonb_typeof(o.limits) = 'string' then
          pg_catalog.left(o.patch, -1) || case o.patch when '{}' then '' else ',' end
            || '"meta+":{"runLimits":' || o.limits::text || '}}'
        else o.patch end`;
  const heartbeat = `with given as materialized (
      select * from unnest($2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bool[])
        as g(key, token, patch, removed, owner, has_meta)),
    owned as materialized (
      select g.*, o.* from given g cross join lateral (${owned}) o),
    marked as materialized (
      select o.*, case when o.has_meta then
        ${editedDocument("o.job", "0", "'{}'::text[]", "'{}'::text", "o.owner")} #> '{meta,runLimits}'::text[] end as limits
      from owned o),
    edited as materialized (
      select o.tid, ${editedDocument("o.job", "0", "o.removed::text[]", patchWithLimits, "o.owner")}::text as document
      from marked o)
    update ${jobs} j set job = pg_catalog.convert_to(s.document, 'UTF8') from edited s
    where j.ctid = s.tid and s.document is not null returning j.key`;

  return { settle, settleAndNotify, complete, completeAndNotify, completeAndDelete, recorded, heartbeat };
}
