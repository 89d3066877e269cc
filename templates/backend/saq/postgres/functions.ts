/** Our functions in the database: made at start-up where the role may, once per schema and however many start at once. */
import type { ClientBase } from "pg";
import { isConnectionError } from "./connection.js";
import { enqueueFunction, enqueueMarker, enqueueName, enqueueVersion } from "./enqueue-function.js";
import { keyspace, type Names, quote, stampName, temporaryStamp } from "./names.js";
import { beginTransaction } from "./session-settings.js";
import { stampStatement } from "./stamp.js";

/** Statements that make what is missing or of an older version. */
export async function missingFunctions(client: ClientBase, names: Names): Promise<string[]> {
  const { rows } = await client.query<{ name: string; source: string }>(
    `select p.proname as name, p.prosrc as source from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     where n.nspname = $1 and p.proname = any($2::text[])`,
    [names.schema, [stampName, enqueueName(names)]],
  );
  const statements: string[] = [];
  if (!rows.some(({ name }) => name === stampName))
    statements.push(stampStatement(`${quote(names.schema)}.${stampName}`));
  const enqueue = rows.find(({ name }) => name === enqueueName(names));
  // One that is newer belongs to a newer engine beside us; one without our mark is somebody else's.
  const isOlder = enqueue && versionOf(enqueue.source) < enqueueVersion;
  if (!enqueue || isOlder) statements.push(enqueueFunction(names));
  return statements;
}

const versionOf = (source: string): number =>
  source.startsWith(enqueueMarker)
    ? Number.parseInt(source.slice(enqueueMarker.length), 10)
    : Number.POSITIVE_INFINITY;

/**
 * Makes the functions where they are missing. A role that may not create one gets the document function per
 * connection; where connections have no session, it does without. Never fails for want of a right.
 */
export async function ensureFunctions(client: ClientBase, names: Names, plain: boolean): Promise<Names> {
  if ((await missingFunctions(client, names)).length === 0) return names;
  await createMissing(client, names);
  const left = await missingFunctions(client, names);
  if (!left.some((statement) => statement.includes(stampName))) return names;
  return plain ? { ...names, stamp: null } : { ...names, stamp: temporaryStamp, temporaryStamp: true };
}

async function createMissing(client: ClientBase, names: Names): Promise<void> {
  await client.query(beginTransaction);
  try {
    await client.query("select pg_advisory_xact_lock($1, 0)", [keyspace.sweep]);
    for (const statement of await missingFunctions(client, names)) {
      await client.query("savepoint made");
      await client.query(statement).catch(async (error: unknown) => {
        if (isConnectionError(error)) throw error;
        await client.query("rollback to savepoint made");
      });
    }
    await client.query("commit");
  } catch (error) {
    await client.query("rollback").catch(() => {});
    throw error;
  }
}
