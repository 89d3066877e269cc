/** Warns when the sequence of `lock_key` is nearly used up: on tables that Python created it does not start over. */
import type { ClientBase } from "pg";
import type { Logger } from "../../logger.js";

const warnFrom = 0.8;

export async function warnOfSequenceEnd(
  client: ClientBase,
  jobsTable: string,
  logger: Logger,
): Promise<void> {
  const { rows } = await client.query<{ name: string; used: number | null }>(
    `select seqrelid::regclass::text as name, case when pg_catalog.has_sequence_privilege(seqrelid, 'select, usage')
       then pg_catalog.pg_sequence_last_value(seqrelid)::float8 / seqmax::float8 end as used
     from pg_sequence where seqrelid = pg_catalog.pg_get_serial_sequence($1, 'lock_key')::regclass and not seqcycle`,
    [jobsTable],
  );
  const [{ name, used } = { name: "", used: null }] = rows;
  if (used === null || used < warnFrom) return;
  logger.warn(
    { sequence: name, usedPercent: Math.floor(used * 100) },
    "the sequence of saq_jobs.lock_key is nearly used up; when it ends, every enqueue fails. " +
      "Run npm run saq -- tune, which lets the sequence start over",
  );
}
