/** Tables as Python's SAQ creates them, for every version. */

/** Version 3 (P-2). */
export const pythonTables = `
  create table saq_versions (version integer);
  create table saq_jobs (
    key text primary key, lock_key serial not null, job bytea not null, queue text not null, status text not null,
    priority smallint not null default 0, group_key text,
    scheduled bigint not null default extract(epoch from now()), expire_at bigint);
  create table saq_stats (worker_id text primary key, stats jsonb, expire_at bigint, metadata jsonb, queue_key text);
  create index saq_jobs_status_queue_group_key_idx on saq_jobs (status, queue, group_key);
  create index saq_jobs_status_queue_priority_scheduled_idx on saq_jobs (status, queue, priority, scheduled);
  create index saq_stats_expire_at_idx on saq_stats (expire_at);
  create index saq_stats_queue_key_idx on saq_stats (queue_key);
  insert into saq_versions values (3);`;

/** Version 1 (P-4). */
export const version1 = `
  create table saq_versions (version integer);
  create table saq_jobs (
    key text primary key, lock_key serial not null, job bytea not null, queue text not null, status text not null,
    scheduled bigint not null default extract(epoch from now()), expire_at bigint);
  create table saq_stats (worker_id text primary key, stats jsonb, expire_at bigint);
  create index saq_jobs_dequeue_idx on saq_jobs (status, queue, scheduled);
  insert into saq_versions values (1);`;

/** What version 2 added to version 1. */
export const version2 = `
  alter table saq_stats add column metadata jsonb, add column queue_key text;
  create index saq_stats_expire_at_idx on saq_stats (expire_at);
  create index saq_stats_queue_key_idx on saq_stats (queue_key);
  update saq_versions set version = 2;`;
