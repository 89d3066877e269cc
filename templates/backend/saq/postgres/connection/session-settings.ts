/**
 * The settings that each of our sessions needs, whatever the defaults of the server, its databases and its roles are.
 * They are in one file because the timeouts have to fit together.
 */

/**
 * The server ends a statement that takes longer. Less than `answerTimeoutMs`, so that the server ends a statement
 * before its client gives it up.
 */
const statementTimeoutMs = 25_000;

/** A connection is given up after this time without an answer: longer than a database may pause. */
export const answerTimeoutMs = 30_000;

export const connectTimeoutMs = 5_000;

/** After this time without an answer, the server is asked whether it works on the statement (dead-connections.ts). */
export const suspectAfterMs = 2_000;
export const checkEveryMs = 1_000;

/**
 * Maximum time to record something while the server accepts new connections, s: a dead connection is given up, another
 * one is opened, and the statement is sent again. Other workers wait for this time before they end a job whose worker
 * lives. `canAsk`: the server can tell which connections are dead.
 */
export const recordSeconds = (canAsk: boolean): number =>
  ((canAsk ? suspectAfterMs + 3 * checkEveryMs : answerTimeoutMs) + connectTimeoutMs) / 1_000;

/** Timeout of statements that change tables in use: the larger the table, the longer they take. */
export const migrationTimeoutMs = 3_600_000;

/** For all sessions. Settings that an operator may have chosen (search_path, read-only, durability) are left alone. */
const limits: Readonly<Record<string, string | number>> = {
  // JIT compilation pays off only for statements that run for seconds. With it, each claim was compiled anew once the
  // statistics showed more than 21,000 queued jobs; on tables without our indexes, with any number of queued jobs. A
  // claim of ten jobs out of 200,000 queued ones took 1.4 to 2.5 s.
  jit: "off",
  // Our statements read a few rows; starting a parallel process takes longer than reading them.
  max_parallel_workers_per_gather: 0,
  // Claims of groups must see what other transactions have committed since their own began. Under another isolation
  // level they do not, and a statement fails with 40001 when another transaction has changed the row (80 of 3,000
  // enqueues).
  default_transaction_isolation: "read committed",
  // If the server carried out a claim after its worker had given up waiting, the claim would own jobs that nobody runs.
  statement_timeout: statementTimeoutMs,
  // Waits for rows have their own limits. A wait for a lock on the table ends at the statement's timeout.
  lock_timeout: 0,
  // Our transactions take milliseconds: a session that is idle in a transaction has lost its client, or blocks others.
  idle_in_transaction_session_timeout: 15_000,
};

/** For sessions that only this process uses, from their start on. */
const sessionLimits: Readonly<Record<string, string | number>> = {
  // The listening connection is idle most of the time.
  idle_session_timeout: 0,
  // When a machine vanishes, a server keeps its sessions and their locks for two hours by default: the worker counts as
  // alive, and its transactions go on holding rows. With these settings it keeps them for 9 s. A process that is merely
  // paused keeps its session, because its kernel answers the keepalives. The server closes such a session only when an
  // answer does not fit into the buffers and the process reads nothing of it for 9 s. The settings have no effect on
  // Unix sockets and on systems that do not support them.
  tcp_keepalives_idle: 3,
  tcp_keepalives_interval: 2,
  tcp_keepalives_count: 3,
  tcp_user_timeout: 9_000,
};

/**
 * A plan made while a table was empty is a sequential scan, and the connection keeps the plan as long as it lives. All
 * our statements read by index, so the other access methods are ruled out (2,950 -> 10,378 round trips/s measured).
 */
const planner: Readonly<Record<string, string | number>> = {
  enable_seqscan: "off",
  enable_bitmapscan: "off",
  enable_hashjoin: "off",
  enable_mergejoin: "off",
};

/** A parameter in LIMIT would make the planner plan each claim anew (picking ten jobs: 298 -> 122 us measured). */
const prepared = { plan_cache_mode: "force_generic_plan" };

const asOptions = (settings: Readonly<Record<string, string | number>>): string =>
  Object.entries(settings)
    .map(([name, value]) => `-c ${name}=${String(value).replaceAll(" ", "\\ ")}`)
    .join(" ");

/**
 * Returns the start-up options of a session. `own` are the options of the address: they override our limits, and our
 * planner settings override them. `extra` overrides all others.
 */
export const startupOptions = (own: string, extra = ""): string =>
  [asOptions({ ...limits, ...sessionLimits }), own, asOptions({ ...planner, ...prepared }), extra]
    .filter(Boolean)
    .join(" ");

/** Begins a transaction on a session that only this process uses. */
export const beginTransaction = "begin isolation level read committed";

/**
 * Begins a transaction behind a transaction pooler. The pooler refuses start-up options and gives the session to other
 * clients afterwards, so the session may have any settings: ours are set for this transaction only.
 */
export const beginPooledTransaction = [
  beginTransaction,
  ...Object.entries({ ...limits, ...planner })
    .filter(([name]) => name !== "default_transaction_isolation")
    .map(([name, value]) => `set local ${name} = ${value}`),
].join("; ");
