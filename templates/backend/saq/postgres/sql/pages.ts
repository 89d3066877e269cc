/** Statements that read jobs page by page in the order of their keys, and that change the jobs of a page. */
import { clock, epoch, type Fragments, failed, running, splitList } from "./fragments.js";
import { changedColumns, maxAnswerBytes } from "./rows.js";

/** Maximum bytes of the documents that are searched for a page. */
const maxSearchedBytes = 32 * 1024 * 1024;

/** Descending: `first` is the page with the highest keys. PostgreSQL knows no highest text to begin with. */
type Order = "ascending" | "descending" | "first";

export function pageStatements({ jobs, isOf, readable }: Fragments) {
  /**
   * Looks at $4 rows, and returns at most $5 of those that may be wanted, together with the key of the last row that it
   * has looked at (`last`), and whether more rows may follow it (`more`). Both are also returned if no row may be
   * wanted.
   *
   * $1 queue, $2 statuses, $3 the key before the page, $6 whether queued jobs are due, $7 beginning of the key. A
   * document must contain $8 or $9, and $10 or $11: null allows all. The bytes are searched, because that never fails
   * and costs less than reading JSON. The caller looks into the documents that are left. The page ends before a row
   * with whose document too many bytes would be searched.
   *
   * The documents of a page together have at most 8 MiB; only the first one may have more. Later rows come without
   * bytes and without a size.
   */
  const page = (rows: string, order: Order) => {
    const direction = order === "ascending" ? "asc" : "desc";
    const contains = (one: string, other: string) =>
      `(${one}::bytea is null or position(${one}::bytea in j.job) > 0 or position(${other}::bytea in j.job) > 0)`;
    return `with page as materialized (
      select r.key, r.tid, r.matches and ($6::boolean is null or r.status <> 'queued' or (r.scheduled <= ${epoch}) = $6)
          and ($7::text is null or pg_catalog.starts_with(r.key, $7)) as matches,
        case when $8::bytea is null and $10::bytea is null then 0 else r.size end as searched
      from (${rows}) r),
    summed as materialized (
      select p.key, p.tid, p.matches, row_number() over near as ordinal,
        sum(case when p.matches then p.searched else 0 end) over near as total
      from page p window near as (order by p.key ${direction} rows unbounded preceding)),
    inspected as materialized (
      select s.* from summed s where s.ordinal = 1 or s.total <= ${maxSearchedBytes}),
    found as materialized (
      select p.key, p.tid from inspected p
      where p.matches and case when $8::bytea is null and $10::bytea is null then true else
          (select ${contains("$8", "$9")} and ${contains("$10", "$11")} from ${jobs} j where j.ctid = p.tid) end
      order by p.key ${direction} limit $5::bigint)
    select s.last, s.more, f.key, f.queue, f.status, f.scheduled, f.token, f.place, f.version, f.clock,
      case when f.ordinal = 1 or f.total <= ${maxAnswerBytes} then f.bytes end as bytes,
      case when f.ordinal = 1 or f.total <= ${maxAnswerBytes} or f.bytes is null then f.size end as size
    from (select pg_catalog.${order === "ascending" ? "max" : "min"}(p.key) as last,
        (select count(*) >= $4::bigint or count(*) > (select count(*) from inspected) from page) as more
      from inspected p) s
    left join (select r.*, row_number() over (order by r.key ${direction}) as ordinal,
        sum(pg_catalog.octet_length(r.bytes)) over (order by r.key ${direction} rows unbounded preceding) as total
      from (select o.* from found w cross join lateral (
        select j.key, j.queue, j.status, j.scheduled, j.lock_key as token, ${readable("j.job")} as bytes,
          pg_catalog.octet_length(j.job) as size, j.ctid::text as place, j.xmin::text as version, ${clock} as clock
        from ${jobs} j where j.ctid = w.tid offset 0) o) r) f on true
    order by f.ordinal`;
  };
  const next = { ascending: "key > $3", descending: "key < $3", first: "$3::text is null" } as const;
  const orderBy = (order: Order) => `order by key ${order === "ascending" ? "asc" : "desc"} limit $4::bigint`;
  const columns = "key, ctid as tid, status, scheduled, pg_catalog.octet_length(job) as size";

  // Each status has its own part of the index of failed jobs, in the order of the keys.
  const failedRows = (order: Order) => `select l.*, true as matches
      from pg_catalog.unnest($2::text[]) as w(wanted) cross join lateral (
        select ${columns} from ${jobs} where queue = $1 and status in ${failed} and status = w.wanted
          and ${next[order]} ${orderBy(order)}) l ${orderBy(order)}`;
  // Reads all running rows, which are few: a search by the primary key would pass every finished job.
  const runningRows = (order: Order) => `select l.*, l.status = any($2::text[]) as matches
      from (select ${columns} from ${jobs} where queue = $1 and status in ${running} offset 0) l
      where ${next[order]} ${orderBy(order)}`;
  // No index has the other statuses in the order of the keys. This walks the primary key, also past other queues.
  const anyRows = (order: Order) => `select ${columns}, queue = $1 and status = any($2::text[]) as matches
      from ${jobs} where ${next[order]} ${orderBy(order)}`;

  // Changes those of the given rows that are as they were when they were read: the row has the same place (ctid, $3)
  // and the same version (xmin, $4). Returns their keys. A row that another transaction holds, that has changed or
  // that is gone is missing from the answer. $2 keys, $5 status, $6 documents in one text (empty = as it is), $7 due
  // time, $8 whether the time to keep the row changes, $9 seconds to keep it, $10 token, $11 whether the job must run
  // alone, $12 payloads of notifications on the channel $13, $14 channel of waiting workers (null = they need not
  // know).
  const changePage = `with given as materialized (
      select g.key, g.status, pg_catalog.convert_to(g.document, 'UTF8') as document, g.due, g.keeps, g.keep, g.token,
        g.alone, g.payload, o.tid
      from unnest($2::text[], $3::tid[], $4::text[], $5::text[], ${splitList("$6")}, $7::bigint[], $8::boolean[],
          $9::bigint[], $10::int[], $11::boolean[], $12::text[])
        as g(key, place, version, status, document, due, keeps, keep, token, alone, payload)
      cross join lateral (select j.ctid as tid from ${jobs} j
        where j.ctid = g.place and j.key = g.key and ${isOf("j")} and j.xmin::text = g.version
        for update of j skip locked) o),
    woken as materialized (select pg_catalog.pg_notify($14, 'saq:enqueue') where $14::text is not null),
    deleted as (delete from ${jobs} j using given g where j.ctid = g.tid and g.keep < 0 returning j.key, g.payload),
    changed as (update ${jobs} j set ${changedColumns}
      from given g where j.ctid = g.tid and coalesce(g.keep, 0) >= 0 returning j.key, g.payload)
    select key, case when payload is not null then pg_catalog.pg_notify($13, payload) end as notified,
      (select count(*) from woken) as woken
    from (select * from deleted union all select * from changed) as written`;

  return {
    failedPage: page(failedRows("ascending"), "ascending"),
    failedPageBack: page(failedRows("descending"), "descending"),
    failedPageLast: page(failedRows("first"), "first"),
    runningPage: page(runningRows("ascending"), "ascending"),
    runningPageBack: page(runningRows("descending"), "descending"),
    runningPageLast: page(runningRows("first"), "first"),
    anyPage: page(anyRows("ascending"), "ascending"),
    anyPageBack: page(anyRows("descending"), "descending"),
    anyPageLast: page(anyRows("first"), "first"),
    changePage,
  };
}
