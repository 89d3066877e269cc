/** The `admin` object of every contestant that stores its jobs in SAQ's table. */
import { connectAdmin } from "./postgres-admin.js";

/** Expiry time of finished jobs that `fill` creates, in epoch seconds: later than that of any job that has run. */
const kept = 9_999_999_999;

export async function admin(url) {
  const { client, one, close } = await connectAdmin(url);
  return {
    client,
    close,
    empty: () => client.query("truncate saq_jobs"),
    settle: () => client.query("vacuum analyze saq_jobs"),

    // Each part uses its own partial index. With `ungrouped`, jobs of groups are ignored.
    unfinished: async ({ ungrouped = false } = {}) =>
      (
        await one(
          `select exists (select 1 from saq_jobs where queue = 'default' and status in ('active', 'aborting')
               and (group_key is null or not $1))
             or exists (select 1 from saq_jobs where queue = 'default' and status = 'queued' and group_key is null
               and scheduled <= extract(epoch from now()))
             or not $1 and exists (select 1 from saq_jobs where queue = 'default' and status = 'queued'
               and group_key is not null and scheduled <= extract(epoch from now())) as found`,
          [ungrouped],
        )
      ).found,

    finished: async () =>
      (
        await one(
          "select count(*)::int as count from saq_jobs where status = 'complete' and expire_at < $1",
          [kept],
        )
      ).count,

    // A statement that changes a page holds the locks of its rows until it ends. It is looked for as often as
    // possible.
    watchLocks: () => {
      let isOver = false;
      let longest = 0;
      const watching = (async () => {
        while (!isOver) {
          const { ms } = await one(
            `select coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0)::float8 * 1000 as ms
             from pg_stat_activity where state <> 'idle' and position('g.alone, g.payload, o.tid' in query) > 0
               and pid <> pg_backend_pid()`,
          );
          longest = Math.max(longest, ms);
        }
      })();
      return async () => {
        isOver = true;
        await watching;
        return longest;
      };
    },

    // The documents have exactly the text that the engine writes when it stores and finishes jobs. With any other text
    // the server must parse the JSON (a drained job costs the server 77 us instead of 45 us).
    fill: async (kind, count, { groups = 0 } = {}) => {
      const prefix = kind === "failed" ? "failed" : "filled";
      const isFinished = kind === "finished" || kind === "failed";
      const due = `floor(extract(epoch from now()))::bigint${kind === "future" ? " + 2592000" : ""}`;
      const ms = "floor(extract(epoch from now()) * 1000)::bigint";
      const ending = {
        queued: `',"status":"queued"}'`,
        future: `format(',"scheduled":%s,"status":"queued"}', ${due})`,
        finished: `format(',"attempts":1,"started":%1$s,"worker_id":"filled","progress":1,"completed":%1$s,"touched":%1$s,'
          '"result":{"ok":%2$s},"status":"complete"}', ${ms}, g)`,
        failed: `format(',"attempts":1,"started":%1$s,"worker_id":"filled","completed":%1$s,"touched":%1$s,'
          '"error":"%2$s","status":"failed"}', ${ms}, repeat('Error: connect ECONNREFUSED ', 36))`,
      }[kind];
      await client.query(
        `insert into saq_jobs (key, job, queue, status, priority, group_key, scheduled, expire_at)
         select $4 || g,
           convert_to(format('{"function":"noop","kwargs":{"i":%1$s},"queue":"default","key":"%3$s%1$s","queued":%2$s',
               g, ${ms}, $4::text)
             || case when $3::int > 0 then format(',"group_key":"group%s"', g % $3) else '' end || ${ending}, 'UTF8'),
           'default', $2, 0, case when $3 > 0 then 'group' || g % $3 end, ${isFinished ? "0" : due},
           ${isFinished ? kept : "null"}
         from generate_series(1, $1::int) g`,
        [count, { finished: "complete", failed: "failed" }[kind] ?? "queued", groups, prefix],
      );
      return true;
    },

    holdGroups: () =>
      client.query(
        `update saq_jobs set status = 'active'
         where key in (select min(key) from saq_jobs where group_key is not null group by group_key)`,
      ),

    trim: async () => {
      await client.query("delete from saq_jobs where key not like 'filled%'");
      return true;
    },

    // The new member is inserted at the start, so that the end of the document stays the same.
    demote: () =>
      client.query(
        `update saq_jobs set priority = 5, job = convert_to('{"priority":5,', 'UTF8') || substr(job, 2)
         where status = 'queued' and scheduled <= extract(epoch from now())`,
      ),

    /** Returns columns of a finished job and the names of its document's members, in order. */
    shape: async () => {
      const row = await one(
        `select queue, status, priority, group_key, scheduled, expire_at is not null as expires,
           (select string_agg(member, ' ' order by place)
            from json_object_keys(convert_from(job, 'UTF8')::json) with ordinality as m(member, place)) as members
         from saq_jobs where status = 'complete' limit 1`,
      );
      return JSON.stringify(row);
    },
  };
}
