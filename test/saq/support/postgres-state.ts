/** Reads and changes the tables of PostgreSQL as another program would. */
import type pg from "pg";
import type { StoredState } from "./stored-state.js";

export type Query = <Row extends pg.QueryResultRow>(text: string, values?: unknown[]) => Promise<Row[]>;

const columns = `key, queue, status, priority, group_key, scheduled::float8, expire_at::float8, lock_key,
  convert_from(job, 'UTF8') as text`;

export const postgresState = (query: Query): StoredState => ({
  now: async () => {
    const [row] = await query<{ now: number }>("select extract(epoch from clock_timestamp())::float8 as now");
    return row?.now ?? Number.NaN;
  },
  row: async (key) => (await query(`select ${columns} from saq_jobs where key = $1`, [key]))[0] as never,
  rows: async (queue) =>
    (await query(`select ${columns} from saq_jobs where queue = $1 order by key`, [queue])) as never,
  insert: async (row) => {
    await query(
      `insert into saq_jobs (key, queue, job, status, scheduled, priority, group_key, expire_at)
       values ($1, $2, $3, $4, coalesce($5, floor(extract(epoch from now()))::bigint), $6, $7, $8)`,
      [
        row.key,
        row.queue,
        Buffer.from(row.document as string),
        row.status ?? "queued",
        row.scheduled ?? null,
        row.priority ?? 0,
        row.group_key ?? null,
        row.expire_at ?? null,
      ],
    );
  },
  edit: async (key, { status, scheduled, expire_at, members, document }) => {
    await query(
      `update saq_jobs set status = coalesce($2, status), scheduled = coalesce($3, scheduled),
         expire_at = coalesce($4, expire_at),
         job = case when $5::jsonb is null then coalesce($6, job)
           else convert_to((convert_from(job, 'UTF8')::jsonb || $5)::text, 'UTF8') end
       where key = $1`,
      [
        key,
        status ?? null,
        scheduled ?? null,
        expire_at === undefined ? null : Math.round(expire_at),
        members === undefined ? null : JSON.stringify(members),
        document === undefined ? null : Buffer.from(document as string),
      ],
    );
  },
  remove: async (key) => {
    await query("delete from saq_jobs where key = $1", [key]);
  },
  takeOver: async (key) => {
    await query("update saq_jobs set lock_key = lock_key # 2 where key = $1", [key]);
  },
  announce: async (queue) => {
    await query("select pg_notify($1, 'saq:enqueue')", [`saq:${queue}`]);
  },
  publish: async (queue, key, status) => {
    await query("select pg_notify($1, $2)", [`saq+${queue}`, `${status} ${key}`]);
  },
  reply: async (address, text) => {
    await query("select pg_notify($1, $2)", [`saq=${address}`, text]);
  },
  worker: async (_queue, workerId) => {
    const [row] = await query<{ left: number; metadata: unknown }>(
      "select (expire_at - extract(epoch from now()))::float8 as left, metadata from saq_stats where worker_id = $1",
      [workerId],
    );
    return row;
  },
  expireWorker: async (_queue, workerId) => {
    await query(
      "update saq_stats set expire_at = floor(extract(epoch from now())) - 60 where worker_id = $1",
      [workerId],
    );
  },
  rewindTick: async (_queue, name, seconds) => {
    await query("update saq_cron set tick = tick - $2 where name = $1", [name, seconds]);
  },
  connections: async () => {
    const left = await query<{ query: string }>(
      "select query from pg_stat_activity where datname = current_database() and application_name = 'saq'",
    );
    return left.map((row) => row.query);
  },
});
