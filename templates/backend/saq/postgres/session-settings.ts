/**
 * What every session of ours needs to be set to, whatever the server, its databases and roles have by default: one
 * place, because the time limits have to fit together.
 */

/**
 * The server ends a statement that takes longer. Less than `answerTimeoutMs`, so that no client has given it up before.
 */
const statementTimeoutMs = 25_000;

/** After that long without an answer a connection is given up: longer than a database may stand still for. */
export const answerTimeoutMs = 30_000;

export const connectTimeoutMs = 5_000;

/** A statement without an answer for that long: the server is asked whether it works on it (dead-connections.ts). */
export const suspectAfterMs = 2_000;
export const lookEveryMs = 1_000;

/**
 * How long it takes at most to write something down while the server answers new connections, s: a connection that is
 * dead is given up, another one is opened, and the statement is sent again. Others wait for that long before they end
 * a job whose worker lives. `canAsk`: the server can say which connections are dead.
 */
export const recordSeconds = (canAsk: boolean): number =>
  ((canAsk ? suspectAfterMs + 3 * lookEveryMs : answerTimeoutMs) + connectTimeoutMs) / 1_000;

/** Changes of tables that are in use take as long as they are large. */
export const migrationTimeoutMs = 3_600_000;

/** For all sessions. What an operator may have set on purpose (search_path, read-only, durability) stays as it is. */
const limits: Readonly<Record<string, string | number>> = {
  // A compiled plan pays off after seconds. With statistics of more than 21,000 queued jobs every claim was compiled
  // anew: a claim of ten at 200,000 queued took 1.4 to 2.5 s, on tables without our indexes at any size.
  jit: "off",
  // Statements of ours read a few rows; starting a process for that takes longer than they do.
  max_parallel_workers_per_gather: 0,
  // Under another isolation a statement does not see what others have committed since the transaction began, on which
  // claims of groups rely, and ends with 40001 where another has changed the row (80 of 3,000 enqueues).
  default_transaction_isolation: "read committed",
  // A claim that the server carries out after its worker has given up owns jobs that nobody runs.
  statement_timeout: statementTimeoutMs,
  // Waits for rows have limits of their own; a wait for a lock on the table ends with the statement's.
  lock_timeout: 0,
  // A transaction of ours takes milliseconds: a session that stands still in one has lost its client, or blocks others.
  idle_in_transaction_session_timeout: 15_000,
};

/** For sessions that are ours alone from their beginning. */
const sessionLimits: Readonly<Record<string, string | number>> = {
  // The listening connection is idle by nature.
  idle_session_timeout: 0,
  // By default a server keeps the session of a machine that has vanished for two hours, with its locks: the worker
  // counts as alive, its transactions go on holding rows. 9 s here. The kernel of a process that stands still goes on
  // answering for it; only an answer that does not fit into its buffers, and of which it has read nothing for 9 s, is
  // given up. On Unix sockets these have no effect, nor where the server's system does not know them.
  tcp_keepalives_idle: 3,
  tcp_keepalives_interval: 2,
  tcp_keepalives_count: 3,
  tcp_user_timeout: 9_000,
};

/**
 * Plans made while a table was empty are sequential scans and are kept for as long as the connection lives; every
 * statement of ours reads by index, so the other ways are ruled out (2,950 -> 10,378 round trips/s measured).
 */
const planner: Readonly<Record<string, string | number>> = {
  enable_seqscan: "off",
  enable_bitmapscan: "off",
  enable_hashjoin: "off",
  enable_mergejoin: "off",
};

/** A parameter in LIMIT would have the planner plan each claim anew (picking ten jobs: 298 -> 122 us measured). */
const prepared = { plan_cache_mode: "force_generic_plan" };

const asOptions = (settings: Readonly<Record<string, string | number>>): string =>
  Object.entries(settings)
    .map(([name, value]) => `-c ${name}=${String(value).replaceAll(" ", "\\ ")}`)
    .join(" ");

/** Start-up options of a session. `own` are those of the address: its limits win over ours, our planner's over its. */
export const startupOptions = (own: string, extra = ""): string =>
  [asOptions({ ...limits, ...sessionLimits }), own, asOptions({ ...planner, ...prepared }), extra]
    .filter(Boolean)
    .join(" ");

/** A transaction on a session of our own. */
export const beginTransaction = "begin isolation level read committed";

/**
 * A transaction on a session that is somebody else's a moment later, and may be set to anything: behind a transaction
 * pooler, which refuses start-up options.
 */
export const beginPooledTransaction = [
  beginTransaction,
  ...Object.entries({ ...limits, ...planner })
    .filter(([name]) => name !== "default_transaction_isolation")
    .map(([name, value]) => `set local ${name} = ${value}`),
].join("; ");
