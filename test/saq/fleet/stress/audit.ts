/**
 * Records every change of a job's state. The database writes it in the transaction that makes the change, so that no
 * killed process can hide one.
 */
import type { TestDatabase } from "../../support/processes/database.js";

/** `before` is null if the row was inserted, `after` is null if it was deleted. */
export interface Change {
  key: string;
  /** Epoch ms by the database's clock. */
  at: number;
  before: State | null;
  after: State | null;
}

export interface State {
  status: string;
  token: number;
  /** Epoch s. */
  scheduled: number;
  group: string | null;
  attempts: number;
  retries: number;
  /** Epoch ms of the claim; 0 while nobody has claimed the job. */
  started: number;
  timeout: number | null;
  error: string | null;
  lost: number;
  /** A worker that died has held the job, whether it had started the job or not. */
  held: boolean;
  cancellations: number;
}

const state = (row: string) => `jsonb_build_object('status', ${row}.status, 'token', ${row}.lock_key,
  'scheduled', ${row}.scheduled, 'group', ${row}.group_key,
  'attempts', coalesce((d->>'attempts')::int, 0), 'retries', coalesce((d->>'retries')::int, 1),
  'started', coalesce((d->>'started')::bigint, 0), 'error', d->>'error',
  'timeout', case when d ? 'timeout' then (d->>'timeout')::float8 else 10 end,
  'lost', coalesce((d->'meta'->>'lost')::int, 0), 'held', d->'meta'->'lost' is not null, 'cancellations', coalesce((d->'meta'->>'cancellations')::int, 0))`;

const document = (row: string) => `(select convert_from(${row}.job, 'UTF8')::jsonb as d) as document`;

/** Starts the audit of a database that has its tables already. */
export async function audit(database: TestDatabase): Promise<void> {
  await database.query(`
    create table changes (id bigserial primary key, key text not null,
      at timestamptz not null default clock_timestamp(), before jsonb, after jsonb);
    create function note_change() returns trigger language plpgsql as $$
    declare before jsonb; after jsonb;
    begin
      if tg_op <> 'INSERT' then select ${state("old")} into before from ${document("old")}; end if;
      if tg_op <> 'DELETE' then select ${state("new")} into after from ${document("new")}; end if;
      -- Progress and signs of life leave the state as it is; a late claim that is renewed starts its job anew.
      if before = after then return null; end if;
      insert into changes (key, before, after) values (case tg_op when 'DELETE' then old.key else new.key end, before, after);
      return null;
    end $$;
    create trigger note_new after insert or delete on saq_jobs for each row execute function note_change();
    create trigger note_change after update on saq_jobs for each row
      when (old.status is distinct from new.status or old.lock_key <> new.lock_key
        or new.status = 'active' and old.job is distinct from new.job) execute function note_change();`);
}

/** Returns the changes by key, in the order in which each row went through them. */
export async function changesByKey(database: TestDatabase): Promise<Map<string, Change[]>> {
  const rows = await database.query<Change & { id: string }>(
    "select key, extract(epoch from at)::float8 * 1000 as at, before, after from changes order by id",
  );
  const byKey = new Map<string, Change[]>();
  for (const { key, at, before, after } of rows) {
    const changes = byKey.get(key) ?? [];
    changes.push({ key, at, before, after });
    byKey.set(key, changes);
  }
  return byKey;
}
