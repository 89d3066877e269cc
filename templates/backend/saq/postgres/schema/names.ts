/**
 * The names of the tables that hold a queue's jobs, and of the objects that belong to them. Every name is quoted, so
 * that any name works. The names of indexes and of the enqueue function are derived from the name of the table, so that
 * one schema can hold two sets of tables.
 */

export interface TableSet {
  /** Null: the schema on the search path that has the tables, else the first schema of the search path. */
  schema: string | null;
  jobs: string;
  stats: string;
  versions: string;
}

/** The table names that Python's SAQ uses by default. */
export const saqTables: TableSet = {
  schema: null,
  jobs: "saq_jobs",
  stats: "saq_stats",
  versions: "saq_versions",
};

/** The qualified and quoted names that statements use, and what was found out about the tables at start-up. */
export interface Names {
  schema: string;
  tables: TableSet;
  jobs: string;
  stats: string;
  versions: string;
  /**
   * The guarded document function; in the temporary schema if the role may not create it in the schema of the tables.
   * Null if it cannot be created there either: then documents are changed in JavaScript, one by one.
   */
  documentFunction: string | null;
  /** True if the function has to be created on every new connection. */
  hasTemporaryFunction: boolean;
  /**
   * True if grouped jobs can be read in their order by an index of their own. With SAQ's indexes the same query would
   * also read all jobs without a group.
   */
  hasGroupOrder: boolean;
  /** True if failed and aborted jobs can be read in the order of their keys. SAQ's indexes do not have this order. */
  hasFailedOrder: boolean;
}

/** Keyspaces of advisory locks. SAQ's own is 0; ours differ from it, so that the two never block each other. */
export const keyspace = { saq: 0, sweep: 21313, liveness: 21314 } as const;

export const quote = (identifier: string): string => `"${identifier.replaceAll('"', '""')}"`;

export const documentFunctionName = "saq_stamp_v3";
export const temporaryDocumentFunction = `pg_temp.${documentFunctionName}`;

export const namesIn = (schema: string, tables: TableSet): Names => ({
  schema,
  tables,
  jobs: `${quote(schema)}.${quote(tables.jobs)}`,
  stats: `${quote(schema)}.${quote(tables.stats)}`,
  versions: `${quote(schema)}.${quote(tables.versions)}`,
  documentFunction: `${quote(schema)}.${documentFunctionName}`,
  hasTemporaryFunction: false,
  hasGroupOrder: false,
  hasFailedOrder: false,
});
