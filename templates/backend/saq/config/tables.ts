/** Checks names of tables that differ from SAQ's. */
import { ConfigError } from "../errors.js";
import type { Tables } from "./queue-options.js";

const saqTables: Tables = { schema: null, jobs: "saq_jobs", stats: "saq_stats", versions: "saq_versions" };

/** An identifier has at most 63 bytes, and the longest name that is derived from a table's is 22 bytes longer. */
const maxTableNameBytes = 40;

/**
 * Checks the names and fills in SAQ's own.
 *
 * @throws ConfigError naming the option, the value received and what is allowed
 */
export function checkTables(at: string, names: Partial<Tables>): Tables {
  for (const [option, name] of Object.entries(names)) {
    if (!Object.hasOwn(saqTables, option))
      throw new ConfigError(
        `${at}: there is no option tables.${option} (known: ${Object.keys(saqTables).join(", ")})`,
      );
    if (name === undefined || (option === "schema" && name === null)) continue;
    const bytes = typeof name === "string" && !name.includes("\0") ? Buffer.byteLength(name) : 0;
    const maxBytes = option === "schema" ? 63 : maxTableNameBytes;
    if (bytes < 1 || bytes > maxBytes)
      throw new ConfigError(
        `${at}: tables.${option} must be a name of 1 to ${maxBytes} bytes, without a schema and without quotes, ` +
          `got ${JSON.stringify(name)}`,
      );
  }
  const { schema, jobs, stats, versions } = {
    schema: names.schema ?? saqTables.schema,
    jobs: names.jobs ?? saqTables.jobs,
    stats: names.stats ?? saqTables.stats,
    versions: names.versions ?? saqTables.versions,
  };
  const isOwn = jobs !== saqTables.jobs || stats !== saqTables.stats;
  // If two sets of tables shared one version record, a set that is missing would count as present.
  if (isOwn && versions === saqTables.versions)
    throw new ConfigError(
      `${at}: tables.jobs "${jobs}" and tables.stats "${stats}" need a tables.versions of their own, ` +
        `got "${versions}"; for instance "${jobs}_versions"`,
    );
  if (new Set([jobs, stats, versions]).size < 3)
    throw new ConfigError(
      `${at}: tables.jobs, tables.stats and tables.versions must be three different names, ` +
        `got "${jobs}", "${stats}" and "${versions}"`,
    );
  return { schema, jobs, stats, versions };
}
