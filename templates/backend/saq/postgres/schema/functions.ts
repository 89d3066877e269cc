/**
 * Creates our functions in the database at start-up, if the role may do so: once per schema, even when many processes
 * start at once.
 *
 * A function runs with the rights of its caller. So a function that has our name is called only if no untrusted role
 * can have put code into it: in PostgreSQL 14 every role may create functions in the schema `public`.
 */
import type { ClientBase } from "pg";
import type { Logger } from "../../logger.js";
import { isConnectionError } from "../connection/errors.js";
import { beginTransaction } from "../connection/session-settings.js";
import {
  createDocumentFunction,
  documentFunctionArguments,
  documentFunctionSource,
} from "./document-function.js";
import { enqueueFunction, enqueueMarker, enqueueName, enqueueVersion } from "./enqueue-function.js";
import { documentFunctionName, keyspace, type Names, quote, temporaryDocumentFunction } from "./names.js";

const enqueueArguments = "text, text, jsonb, jsonb";

interface FoundFunction {
  name: string;
  owner: string;
  /** Its owner also owns the tables, is a superuser, is this role, or is a role that this role is a member of. */
  isTrusted: boolean;
  /** It has the options of our document function, and this role may call it. */
  isUsable: boolean;
  source: string;
}

/** The functions in the schema that have the names and arguments of ours; null where there is none. */
interface Found {
  documentFunction: FoundFunction | null;
  enqueue: FoundFunction | null;
}

async function findFunctions(client: ClientBase, names: Names): Promise<Found> {
  // Do not use pg_has_role for a superuser: it says that a superuser is a member of every role.
  const { rows } = await client.query<FoundFunction>(
    `select p.proname as name, o.rolname as owner, p.prosrc as source,
       o.rolsuper or p.proowner = me.oid or p.proowner is not distinct from t.relowner
         or not me.rolsuper and pg_catalog.pg_has_role(me.oid, p.proowner, 'member') as "isTrusted",
       l.lanname = 'plpgsql' and not p.prosecdef and p.proconfig is null and p.prorettype = 'jsonb'::regtype
         and pg_catalog.has_schema_privilege(n.oid, 'usage') and pg_catalog.has_function_privilege(p.oid, 'execute') as "isUsable"
     from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
       join pg_roles o on o.oid = p.proowner join pg_roles me on me.rolname = current_user
       left join pg_class t on t.relnamespace = n.oid and t.relname = $2
     where n.nspname = $1 and (p.proname, pg_catalog.oidvectortypes(p.proargtypes)) in (($3, $4), ($5, $6))`,
    [
      names.schema,
      names.tables.jobs,
      documentFunctionName,
      documentFunctionArguments,
      enqueueName(names),
      enqueueArguments,
    ],
  );
  const named = (name: string) => rows.find((row) => row.name === name) ?? null;
  return { documentFunction: named(documentFunctionName), enqueue: named(enqueueName(names)) };
}

const isOurs = (documentFunction: FoundFunction | null): boolean =>
  Boolean(documentFunction?.isTrusted && documentFunction.isUsable) &&
  documentFunction?.source === documentFunctionSource;

/** False for a newer function, which a newer engine has created, and for one without our marker, which is not ours. */
const isReplaceable = ({ isTrusted, source }: FoundFunction): boolean =>
  isTrusted && versionOf(source) < enqueueVersion;

const versionOf = (source: string): number =>
  source.startsWith(enqueueMarker)
    ? Number.parseInt(source.slice(enqueueMarker.length), 10)
    : Number.POSITIVE_INFINITY;

const inSchema = ({ schema }: Names, name: string): string => `${quote(schema)}.${quote(name)}`;

/** Returns statements that create the missing functions, and replace the enqueue function if it is older. */
function missingStatements(names: Names, { documentFunction, enqueue }: Found): string[] {
  return [
    ...(documentFunction ? [] : [createDocumentFunction(inSchema(names, documentFunctionName))]),
    ...(!enqueue || isReplaceable(enqueue) ? [enqueueFunction(names)] : []),
  ];
}

/**
 * As `missingStatements`, and first drops functions that have taken the place of ours: an enqueue function that is not
 * trusted, and a document function that is not trusted, not usable or not of our source.
 */
export async function missingFunctions(client: ClientBase, names: Names): Promise<string[]> {
  const { documentFunction, enqueue } = await findFunctions(client, names);
  const foreign = [
    documentFunction && !isOurs(documentFunction)
      ? `${inSchema(names, documentFunctionName)}(${documentFunctionArguments})`
      : null,
    enqueue && !enqueue.isTrusted ? `${inSchema(names, enqueueName(names))}(${enqueueArguments})` : null,
  ];
  return [
    ...foreign.flatMap((signature) => (signature ? [`drop function ${signature}`] : [])),
    ...missingStatements(names, {
      documentFunction: foreign[0] ? null : documentFunction,
      enqueue: foreign[1] ? null : enqueue,
    }),
  ];
}

/**
 * Creates the functions where they are missing, and returns the names with the document function to use. A role that
 * may not create functions in the schema gets the document function in the temporary schema of each connection. If
 * connections have no session (`behindPooler`), or the role may not create it there either, there is none. A missing
 * right is never an error.
 */
export async function ensureFunctions(
  client: ClientBase,
  names: Names,
  { behindPooler, logger }: { behindPooler: boolean; logger: Logger },
): Promise<Names> {
  let found = await findFunctions(client, names);
  if (missingStatements(names, found).length > 0) {
    await createFunctions(client, names);
    found = await findFunctions(client, names);
  }
  const { documentFunction, enqueue } = found;
  if (enqueue && !enqueue.isTrusted) warnOfForeign(logger, inSchema(names, enqueueName(names)), enqueue);
  if (isOurs(documentFunction)) return names;
  if (documentFunction) warnOfForeign(logger, inSchema(names, documentFunctionName), documentFunction);
  if (!behindPooler && (await createTemporary(client)))
    return { ...names, documentFunction: temporaryDocumentFunction, hasTemporaryFunction: true };
  logger.warn(
    { schema: names.schema },
    "this database role has no document function and may not create one: retries, failures and jobs of other " +
      "programs are written one by one, which is slower. Run npm run saq -- tune as the owner of the tables",
  );
  return { ...names, documentFunction: null };
}

function warnOfForeign(logger: Logger, name: string, { owner, isTrusted, isUsable }: FoundFunction): void {
  const reason = !isTrusted
    ? "its owner does not own the tables, is no superuser, and is not a role of this process"
    : isUsable
      ? "its text differs from the engine's function"
      : "this role may not execute it, or its options differ from the engine's function";
  logger.warn(
    { function: name, owner },
    `a function with the name of an engine function is not used: ${reason}. Drop it, then run npm run saq -- tune as ` +
      "the owner of the tables",
  );
}

async function createFunctions(client: ClientBase, names: Names): Promise<void> {
  await client.query(beginTransaction);
  try {
    await client.query("select pg_catalog.pg_advisory_xact_lock($1, 0)", [keyspace.sweep]);
    for (const statement of missingStatements(names, await findFunctions(client, names))) {
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

/** Returns false if this role may not create a function in its temporary schema either. */
async function createTemporary(client: ClientBase): Promise<boolean> {
  try {
    await client.query(createDocumentFunction(temporaryDocumentFunction));
    return true;
  } catch (error) {
    if (isConnectionError(error)) throw error;
    return false;
  }
}
