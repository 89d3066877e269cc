/**
 * One PostgreSQL server as one process sees it: a small pool, the LISTEN connection, the clock offset. Queues with the
 * same DSN share it, whatever their tables.
 */

import { setMaxListeners } from "node:events";
import pg from "pg";
import { backoffMs } from "../backoff.js";
import type { Logger } from "../logger.js";
import { ProblemLog } from "../problem-log.js";
import { within } from "../within.js";
import { Client } from "./client.js";
import { DatabaseClock } from "./clock.js";
import {
  clientConfig,
  closeSocket,
  explainMissingTable,
  explainPooler,
  hangUp,
  isConnectionError,
  isReadTimeout,
  markUnavailable,
  sleep,
  wasIdleTooLong,
  withTimeout,
} from "./connection.js";
import { DeadConnections, statementOf } from "./dead-connections.js";
import type { Statement } from "./fragments.js";
import { Listener, outage } from "./listener.js";
import { temporaryStamp } from "./names.js";
import {
  beginPooledTransaction,
  beginTransaction,
  connectTimeoutMs,
  recordSeconds,
} from "./session-settings.js";
import { stampStatement } from "./stamp.js";
import { serverStatements } from "./statements.js";

export interface ServerOptions {
  dsn: string;
  /** Most connections in all, the LISTEN connection included. */
  maxSize: number;
  minSize: number;
  /** No LISTEN, no session state, no named statements: for transaction poolers. */
  plain: boolean;
  logger: Logger;
}

/** How long a statement is sent again, and after which errors. */
export interface Persistence {
  /** ms */
  patience?: number;
  again?: (error: unknown, sent: number) => boolean;
}

/** What the pool's connections are called in the log of problems. */
const source = "database";

/** How long an answer may take while the connections are closed. */
const closePatienceMs = 1_000;

/** How long a statement that may be sent again waits for a lost database: less than browsers' and proxies' limits. */
const patienceMs = 8_000;

export class Connections {
  readonly options: ServerOptions;
  /** Connects when it is first used. Null behind a transaction pooler. */
  readonly listener: Listener | null;
  readonly clock: DatabaseClock;
  readonly #pool: pg.Pool;
  readonly #problems: ProblemLog;
  /** Null behind a transaction pooler, which knows the sessions by numbers of its own. */
  readonly #dead: DeadConnections | null;
  #users = 0;
  #opening: Promise<void> | null = null;
  /** Also ends the waits between tries, so that a close does not sit them out. */
  readonly #closing = new AbortController();
  readonly #clients = new Set<pg.PoolClient>();
  readonly #unsent = new WeakSet<object>();
  #lastTrouble = Number.NEGATIVE_INFINITY;
  /** Connections that have the function of roles that may not create one; null while it is not needed. */
  #stamped: WeakSet<pg.PoolClient> | null = null;

  constructor(options: ServerOptions) {
    this.options = options;
    const { dsn, plain, logger } = options;
    const { vouch, unvouch } = serverStatements;
    const config = clientConfig(dsn, { plain });
    this.#problems = new ProblemLog(logger);
    this.#dead = plain
      ? null
      : new DeadConnections({
          config: clientConfig(dsn, { plain, name: "saq check" }),
          clients: this.#clients,
          logger,
          found: () => this.listener?.probe(),
          signal: this.#closing.signal,
        });
    this.listener = plain
      ? null
      : new Listener({
          config,
          silent: () => this.#suspectAll(),
          vouch: vouch.text,
          unvouch: unvouch.text,
          logger,
          problems: this.#problems,
        });
    this.#pool = new pg.Pool({
      ...config,
      // The pool hands it its own options; their type has no room for that.
      Client: Client as unknown as new () => pg.Client,
      max: plain ? options.maxSize : options.maxSize - 1,
      min: options.minSize,
      idleTimeoutMillis: 30_000,
      allowExitOnIdle: false,
    });
    this.clock = new DatabaseClock({
      read: () => this.#readClock(),
      pause: (ms) => this.pause(ms),
      isClosed: () => this.closed,
      logger,
    });
    // Any number of statements may wait at once for a database that is away.
    setMaxListeners(0, this.#closing.signal);
    // An idle connection that breaks is replaced at the next use; without a listener the event would end the process.
    this.#pool.on("error", (error) => logger.debug({ err: error }, "idle connection lost"));
    // One that breaks between two statements of a transaction emits an error too, and pg-pool listens only while a
    // connection is idle. The next statement on it fails, which is where it is dealt with.
    this.#pool.on("connect", (client) => {
      this.#clients.add(client);
      this.#dead?.start();
      client.on("error", () => {});
      client.on("end", () => this.#clients.delete(client));
    });
  }

  get closed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** Learns the database's clock, once. */
  open(): Promise<void> {
    this.#opening ??= Promise.all([this.clock.start(), this.#compareNumbers()]).then(
      () => {},
      (error) => {
        this.#opening = null;
        throw error;
      },
    );
    return this.#opening;
  }

  /** How long it takes at most to write something down while the server answers new connections, s. */
  get recordSeconds(): number {
    return recordSeconds(this.#dead?.cannotAsk === false);
  }

  /** Whether the server knows our sessions by the numbers that we know. */
  async #compareNumbers(): Promise<void> {
    if (!this.#dead) return;
    const client = await this.take();
    try {
      const { rows } = await client.query<{ pid: number }>("select pg_backend_pid() as pid");
      this.#dead.compare(client, rows[0]?.pid ?? 0);
    } finally {
      client.release();
    }
  }

  /**
   * The listening connection has fallen silent: others may have, too. Idle ones are opened anew when they are needed.
   */
  #suspectAll(): void {
    for (const client of this.#clients) if (!statementOf(client)) closeSocket(client);
    this.#dead?.suspectAll();
  }

  /** Counts a queue in; `release` counts it out, and the last one closes the connections, answered or not. */
  retain(): this {
    this.#users++;
    return this;
  }

  async release(): Promise<void> {
    if (--this.#users > 0 || this.closed) return;
    this.#closing.abort();
    this.clock.stop();
    this.#dead?.stop();
    const closed = Promise.all([this.listener?.close(closePatienceMs), this.#pool.end()]);
    await within(closePatienceMs, closed);
    for (const client of this.#clients) void hangUp(client, closePatienceMs);
  }

  /** For a connection of this pool: prepared there once, where that is allowed. */
  prepared({ name, text }: Statement, values: unknown[]): pg.QueryConfig {
    return this.options.plain ? { text, values } : { name, text, values };
  }

  /** Runs a statement that is prepared once per connection. */
  async query<Row extends pg.QueryResultRow>(statement: Statement, values: unknown[]): Promise<Row[]> {
    const query = this.prepared(statement, values);
    // A session that is somebody else's next has whatever settings it has: ours come with a transaction.
    if (this.options.plain)
      return this.#inTransaction(
        beginPooledTransaction,
        async (client) => (await client.query<Row>(query)).rows,
      );
    for (let tries = 1; ; tries++) {
      const before = this.#lastTrouble;
      const client = await this.take();
      let broken: Error | undefined;
      try {
        const { rows } = await client.query<Row>(query);
        this.#answered(before);
        return rows;
      } catch (error) {
        // Also after an answer that is an error: a plan that a connection keeps may be what is wrong.
        broken = error as Error;
        if (!wasIdleTooLong(error) || !this.#mayRepeat(tries)) throw this.#noted(error);
      } finally {
        client.release(broken);
      }
    }
  }

  /** Each connection of the pool may have been ended by the server while it was idle. */
  #mayRepeat(tries: number): boolean {
    return tries <= this.options.maxSize && !this.closed;
  }

  /**
   * As `query`, for statements that do no harm when sent twice: waits for a lost database to come back. `again` may
   * widen that to other errors; it is told how often the statement was sent.
   */
  async queryAgain<Row extends pg.QueryResultRow>(
    statement: Statement,
    values: unknown[],
    { patience = patienceMs, again = isConnectionError }: Persistence = {},
  ): Promise<{ rows: Row[]; resent: boolean }> {
    const deadline = performance.now() + patience;
    for (let attempt = 0; ; attempt++) {
      try {
        return { rows: await this.query<Row>(statement, values), resent: attempt > 0 };
      } catch (error) {
        const wait = backoffMs(attempt);
        if (!again(error, attempt + 1) || performance.now() + wait > deadline || this.closed) throw error;
        await this.pause(wait);
      }
    }
  }

  /** Resolves after that time, or when the connections are closed. */
  pause(ms: number): Promise<void> {
    return sleep(ms, this.#closing.signal);
  }

  /** The statement that failed so never left this process: there was no connection to send it on. */
  neverSent(error: unknown): boolean {
    return typeof error === "object" && error !== null && this.#unsent.has(error);
  }

  /** When the way to the database failed last, by performance.now(). */
  get lastTrouble(): number {
    return this.#lastTrouble;
  }

  /** From now on every connection has the document function in its role's temporary schema. */
  stampOnEach(): void {
    this.#stamped ??= new WeakSet();
  }

  /** A connection of the pool; whoever takes it releases it. */
  async take(): Promise<pg.PoolClient> {
    try {
      const client = await this.#pool.connect();
      if (this.#stamped && !this.#stamped.has(client)) await this.#stamp(client, this.#stamped);
      return client;
    } catch (error) {
      throw this.#notSent(this.#noted(error));
    }
  }

  #notSent(error: unknown): unknown {
    if (typeof error === "object" && error !== null) this.#unsent.add(error);
    return error;
  }

  #noted(given: unknown): unknown {
    const error = explainMissingTable(explainPooler(given));
    if (!isConnectionError(error)) return error;
    this.#lastTrouble = performance.now();
    this.#problems.failed({ source, error, message: "the database is unavailable", kind: outage });
    return markUnavailable(error);
  }

  /**
   * A statement succeeded. `before`: `lastTrouble` when it began; one that was under way at a failure proves nothing.
   */
  #answered(before: number): void {
    if (before === this.#lastTrouble) this.#problems.succeeded(source);
  }

  /**
   * Runs `work` in a transaction of its own, which waits at most 5 s for a row that somebody holds. `sequentialScan`
   * lets the planner read a whole table, which is ruled out otherwise.
   */
  async transaction<T>(
    work: (client: pg.PoolClient) => Promise<T>,
    { sequentialScan = false }: { sequentialScan?: boolean } = {},
  ): Promise<T> {
    const begin = this.options.plain ? beginPooledTransaction : beginTransaction;
    const scan = sequentialScan
      ? "; set local enable_seqscan = on; set local max_parallel_workers_per_gather = 2"
      : "";
    return this.#inTransaction(`${begin}; set local lock_timeout = '5s'${scan}`, work);
  }

  async #inTransaction<T>(begin: string, work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      const before = this.#lastTrouble;
      const client = await this.take();
      let hasBegun = false;
      let broken: Error | undefined;
      try {
        await client.query(begin);
        hasBegun = true;
        const answer = await work(client);
        await client.query("commit");
        this.#answered(before);
        return answer;
      } catch (error) {
        // Nothing more is sent on a connection that is lost: a rollback would wait on the same dead socket.
        if (isConnectionError(error)) broken = error as Error;
        else
          await client.query(withTimeout("rollback", connectTimeoutMs)).catch((reason: Error) => {
            broken = reason;
          });
        if (hasBegun) throw this.#noted(error);
        // The server had ended the session meanwhile, and nothing was carried out.
        if (!isConnectionError(error) || isReadTimeout(error) || !this.#mayRepeat(tries))
          throw this.#notSent(this.#noted(error));
      } finally {
        client.release(broken);
      }
    }
  }

  async #stamp(client: pg.PoolClient, stamped: WeakSet<pg.PoolClient>): Promise<void> {
    try {
      await client.query(stampStatement(temporaryStamp));
      stamped.add(client);
    } catch (error) {
      client.release(error as Error);
      throw error;
    }
  }

  async #readClock(): Promise<number> {
    const [row] = await this.query<{ ms: number }>(serverStatements.clock, []);
    if (!row) throw new Error("The database did not answer what time it is");
    return row.ms;
  }
}
