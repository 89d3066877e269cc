/**
 * Which tables a queue's jobs are in (P-1, D-12), and the names of what belongs to them. Every name is quoted, so that
 * any will do; what is derived from one (indexes, functions) begins with it, so that two sets lie side by side.
 */

export interface TableSet {
  /** Null: where the tables are found on the search path, else its first schema. */
  schema: string | null;
  jobs: string;
  stats: string;
  versions: string;
}

/** SAQ's own names. */
export const saqTables: TableSet = {
  schema: null,
  jobs: "saq_jobs",
  stats: "saq_stats",
  versions: "saq_versions",
};

/** Qualified, quoted names of everything that statements mention, and what was found about it. */
export interface Names {
  schema: string;
  tables: TableSet;
  jobs: string;
  stats: string;
  versions: string;
  /**
   * The guarded document function; in a role's temporary schema where it may not create one. Null where it cannot be
   * there either: then every document is changed in JavaScript, one by one.
   */
  stamp: string | null;
  /** The function has to be made on every new connection. */
  temporaryStamp: boolean;
  /**
   * Grouped jobs can be read in their order by an index of their own. Over SAQ's indexes that would read all jobs
   * without a group, too.
   */
  hasGroupOrder: boolean;
}

/** Advisory lock keyspaces (P-36): SAQ's own is 0; ours are apart from it. */
export const keyspace = { saq: 0, sweep: 21313, life: 21314 } as const;

export const quote = (identifier: string): string => `"${identifier.replaceAll('"', '""')}"`;

export const stampName = "saq_stamp_v3";
export const temporaryStamp = `pg_temp.${stampName}`;

export const namesIn = (schema: string, tables: TableSet): Names => ({
  schema,
  tables,
  jobs: `${quote(schema)}.${quote(tables.jobs)}`,
  stats: `${quote(schema)}.${quote(tables.stats)}`,
  versions: `${quote(schema)}.${quote(tables.versions)}`,
  stamp: `${quote(schema)}.${stampName}`,
  temporaryStamp: false,
  hasGroupOrder: false,
});
