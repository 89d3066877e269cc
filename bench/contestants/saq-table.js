/** What every contestant has in common that keeps its jobs in SAQ's table. */
export const empty = (client) => client.query("truncate saq_jobs");

export const settle = (client) => client.query("vacuum analyze saq_jobs");

export async function unfinished(client) {
  const { rows } = await client.query(
    `select exists (select 1 from saq_jobs where queue = 'default' and status in ('active', 'aborting'))
       or exists (select 1 from saq_jobs where queue = 'default' and status = 'queued' and group_key is null) as found`,
  );
  return rows[0].found;
}

export async function finished(client) {
  const { rows } = await client.query(
    "select count(*)::int as count from saq_jobs where status = 'complete'",
  );
  return rows[0].count;
}

/** The columns of a finished job and the members of its document, without their values. */
export async function shape(client) {
  const { rows } = await client.query(
    `select queue, status, priority, group_key, scheduled, expire_at is not null as expires,
       (select string_agg(member, ' ' order by member)
        from jsonb_object_keys(convert_from(job, 'UTF8')::jsonb) member) as members
     from saq_jobs where status = 'complete' limit 1`,
  );
  return JSON.stringify(rows[0]);
}
