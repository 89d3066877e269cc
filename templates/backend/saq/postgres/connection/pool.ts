/**
 * The connections of one process to one PostgreSQL server: a small pool, the LISTEN connection and the clock offset.
 * Queues with the same DSN share them, even if they use different tables.
 */

import { setMaxListeners } from "node:events";
import pg from "pg";
import { backoffMs } from "../../core/backoff.js";
import { SaqError } from "../../errors.js";
import type { Logger } from "../../logger.js";
import { ProblemLog } from "../../problem-log.js";
import { DatabaseClock } from "../../storage/clock.js";
import { sleep, withTimeout } from "../../timers.js";
import { createDocumentFunction } from "../schema/document-function.js";
import { temporaryDocumentFunction } from "../schema/names.js";
import type { Statement } from "../sql/fragments.js";
import { serverStatements } from "../sql/statements.js";
import { Client, closeClient, closeSocket } from "./client.js";
import { clientConfig, withAnswerTimeout } from "./client-settings.js";
import { DeadConnections, statementOf } from "./dead-connections.js";
import {
  explainMissingTable,
  explainPooler,
  isConnectionError,
  isReadTimeout,
  markUnavailable,
  wasIdleTooLong,
} from "./errors.js";
import { Listener, outage } from "./listener.js";
import {
  beginPooledTransaction,
  beginTransaction,
  connectTimeoutMs,
  recordSeconds,
} from "./session-settings.js";

export interface PoolOptions {
  dsn: string;
  /** Maximum number of connections, including the LISTEN connection. */
  maxSize: number;
  minSize: number;
  /** A transaction pooler is in between: no LISTEN, no session state and no named statements are used. */
  behindPooler: boolean;
  logger: Logger;
}

/** How long a statement is sent again, and after which errors. */
export interface RetryOptions {
  /** ms */
  timeoutMs?: number;
  /** Gets the error and how often the statement was sent. Default: after connection errors. */
  retryIf?: (error: unknown, sentCount: number) => boolean;
}

/** The name of the pool's connections in the problem log. */
const source = "database";

/** Timeout for the server's responses when the connections are closed, ms. */
const closeTimeoutMs = 1_000;

/**
 * How long a statement that may be sent again waits for an unreachable database, ms. Browsers and proxies wait longer.
 */
const defaultTimeoutMs = 8_000;

export class ConnectionPool {
  /** Private: the DSN may have a password, and a queue that is printed shows its public properties. */
  readonly #options: PoolOptions;
  /** Connects at its first use. Null behind a transaction pooler. */
  readonly listener: Listener | null;
  readonly clock: DatabaseClock;
  readonly #pool: pg.Pool;
  readonly #problems: ProblemLog;
  /** Null behind a transaction pooler, because the pooler uses its own session numbers. */
  readonly #deadConnections: DeadConnections | null;
  #userCount = 0;
  #opening: Promise<void> | null = null;
  /** Also ends the pauses between retries, so that closing does not wait for them. */
  readonly #closing = new AbortController();
  readonly #clients = new Set<pg.PoolClient>();
  readonly #unsentErrors = new WeakSet<object>();
  #lastFailureAt = Number.NEGATIVE_INFINITY;
  /**
   * Connections that have the document function in their temporary schema, because the role may not create it
   * elsewhere. Null if it is not needed.
   */
  #clientsWithFunction: WeakSet<pg.PoolClient> | null = null;

  constructor(options: PoolOptions) {
    this.#options = options;
    const { dsn, behindPooler, logger } = options;
    const { holdLiveness, releaseLiveness } = serverStatements;
    const config = clientConfig(dsn, { noStartupOptions: behindPooler });
    this.#problems = new ProblemLog(logger);
    this.#deadConnections = behindPooler
      ? null
      : new DeadConnections({
          config: clientConfig(dsn, { noStartupOptions: behindPooler, name: "saq check" }),
          clients: this.#clients,
          logger,
          onDead: () => this.listener?.probe(),
          signal: this.#closing.signal,
        });
    this.listener = behindPooler
      ? null
      : new Listener({
          config,
          onUnresponsive: () => this.#suspectAll(),
          holdLiveness: holdLiveness.text,
          releaseLiveness: releaseLiveness.text,
          logger,
          problems: this.#problems,
        });
    this.#pool = new pg.Pool({
      ...config,
      // The pool passes all its options to this constructor, which pg's types do not allow.
      Client: Client as unknown as new () => pg.Client,
      max: behindPooler ? options.maxSize : options.maxSize - 1,
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
    // Many statements may wait for an unreachable database at the same time, each with a listener on this signal.
    setMaxListeners(0, this.#closing.signal);
    // A broken idle connection is replaced at the next use. Without a listener, the event would end the process.
    this.#pool.on("error", (error) => logger.debug({ err: error }, "idle connection lost"));
    // A connection that breaks between two statements of a transaction emits an error too, but pg-pool listens only
    // while a connection is idle. The error is ignored here: the next statement on the connection fails and handles it.
    this.#pool.on("connect", (client) => {
      this.#clients.add(client);
      this.#deadConnections?.start();
      client.on("error", () => {});
      client.on("end", () => this.#clients.delete(client));
    });
  }

  get closed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** @throws SaqError queue_closed after the connections were closed */
  checkOpen(): void {
    if (this.closed) throw new SaqError("queue_closed", "The queue was closed and cannot be used again");
  }

  /** Measures the database's clock and checks the session numbers. Does this once. */
  open(): Promise<void> {
    this.#opening ??= Promise.all([this.clock.start(), this.#compareSessionNumbers()]).then(
      () => {},
      (error) => {
        this.#opening = null;
        throw error;
      },
    );
    return this.#opening;
  }

  /** Maximum time to store something while the server accepts new connections, s. */
  get recordSeconds(): number {
    return recordSeconds(this.#deadConnections?.cannotAsk === false);
  }

  /** Checks whether the server and this process use the same number for a session. A pooler may use its own numbers. */
  async #compareSessionNumbers(): Promise<void> {
    if (!this.#deadConnections) return;
    const client = await this.acquire();
    try {
      const { rows } = await client.query<{ pid: number }>("select pg_backend_pid() as pid");
      this.#deadConnections.compare(client, rows[0]?.pid ?? 0);
    } finally {
      client.release();
    }
  }

  /**
   * Called when the listening connection does not respond: other connections may be dead too. Closes the connections
   * that wait for no response; the pool opens new ones when they are needed. Checks the others.
   */
  #suspectAll(): void {
    for (const client of this.#clients) if (!statementOf(client)) closeSocket(client);
    this.#deadConnections?.suspectAll();
  }

  /**
   * Adds a user. `release` removes one. When the last user is removed, the connections are closed, even if the server
   * does not respond.
   */
  retain(): this {
    this.#userCount++;
    return this;
  }

  async release(): Promise<void> {
    if (--this.#userCount > 0 || this.closed) return;
    this.#closing.abort();
    this.clock.stop();
    this.#deadConnections?.stop();
    const closed = Promise.all([this.listener?.close(closeTimeoutMs), this.#pool.end()]);
    await withTimeout(closeTimeoutMs, closed);
    for (const client of this.#clients) void closeClient(client, closeTimeoutMs);
  }

  /** True behind a transaction pooler: no LISTEN, no session locks, no prepared statements. */
  get behindPooler(): boolean {
    return this.#options.behindPooler;
  }

  get logger(): Logger {
    return this.#options.logger;
  }

  /**
   * Returns the query for pg. With a name, each connection prepares it once; behind a transaction pooler it has no
   * name.
   */
  prepared({ name, text }: Statement, values: unknown[]): pg.QueryConfig {
    return this.#options.behindPooler ? { text, values } : { name, text, values };
  }

  /** Runs a statement that is prepared once per connection. */
  async query<Row extends pg.QueryResultRow>(statement: Statement, values: unknown[]): Promise<Row[]> {
    const query = this.prepared(statement, values);
    // A pooled session is shared with other clients and may have any settings. Our settings are set in a transaction.
    if (this.#options.behindPooler)
      return this.#inTransaction(
        beginPooledTransaction,
        async (client) => (await client.query<Row>(query)).rows,
      );
    for (let tries = 1; ; tries++) {
      const failureBefore = this.#lastFailureAt;
      const client = await this.acquire();
      let broken: Error | undefined;
      try {
        const { rows } = await client.query<Row>(query);
        this.#reportSuccess(failureBefore);
        return rows;
      } catch (error) {
        // The connection is closed even if the server returned an error, because a plan that it keeps may be the cause.
        broken = error as Error;
        if (!wasIdleTooLong(error) || !this.#mayRetry(tries)) throw this.#reportError(error);
      } finally {
        client.release(broken);
      }
    }
  }

  /**
   * Allows one try per connection, because the server may have ended every connection of the pool while it was idle.
   */
  #mayRetry(tries: number): boolean {
    return tries <= this.#options.maxSize && !this.closed;
  }

  /**
   * Like `query`, but waits until an unreachable database is back. Only for statements that do no harm when they are
   * sent twice. `retryIf` may allow retries after other errors.
   * Returns the rows and, in `resent`, whether the statement was sent more than once.
   */
  async queryWithRetry<Row extends pg.QueryResultRow>(
    statement: Statement,
    values: unknown[],
    { timeoutMs = defaultTimeoutMs, retryIf = isConnectionError }: RetryOptions = {},
  ): Promise<{ rows: Row[]; resent: boolean }> {
    const deadline = performance.now() + timeoutMs;
    for (let attempt = 0; ; attempt++) {
      try {
        return { rows: await this.query<Row>(statement, values), resent: attempt > 0 };
      } catch (error) {
        const wait = backoffMs(attempt);
        if (!retryIf(error, attempt + 1) || performance.now() + wait > deadline || this.closed) throw error;
        await this.pause(wait);
      }
    }
  }

  /** Resolves after `ms`, or when the connections are closed. */
  pause(ms: number): Promise<void> {
    return sleep(ms, this.#closing.signal);
  }

  /** Returns true if the statement with this error never left this process: there was no connection to send it on. */
  neverSent(error: unknown): boolean {
    return typeof error === "object" && error !== null && this.#unsentErrors.has(error);
  }

  /** When a connection to the database last failed, by performance.now(). */
  get lastFailureAt(): number {
    return this.#lastFailureAt;
  }

  /** From now on, every connection gets the document function in its temporary schema when it is taken. */
  addDocumentFunctionToEach(): void {
    this.#clientsWithFunction ??= new WeakSet();
  }

  /**
   * Returns a connection of the pool; the caller must release it.
   *
   * @throws SaqError queue_closed after the connections were closed
   */
  async acquire(): Promise<pg.PoolClient> {
    try {
      this.checkOpen();
      const client = await this.#pool.connect();
      if (this.#clientsWithFunction && !this.#clientsWithFunction.has(client))
        await this.#addDocumentFunction(client, this.#clientsWithFunction);
      return client;
    } catch (error) {
      throw this.#markUnsent(this.#reportError(error));
    }
  }

  #markUnsent(error: unknown): unknown {
    if (typeof error === "object" && error !== null) this.#unsentErrors.add(error);
    return error;
  }

  #reportError(given: unknown): unknown {
    const error = explainMissingTable(explainPooler(given));
    if (!isConnectionError(error)) return error;
    this.#lastFailureAt = performance.now();
    this.#problems.failed({ source, error, message: "the database is unavailable", kind: outage });
    return markUnavailable(error);
  }

  /**
   * Called when a statement succeeded. `failureBefore` is `lastFailureAt` when it began: a statement that ran during a
   * failure does not prove that the problem is over.
   */
  #reportSuccess(failureBefore: number): void {
    if (failureBefore === this.#lastFailureAt) this.#problems.succeeded(source);
  }

  /**
   * Runs `work` in a transaction of its own. The transaction waits at most 5 s for a row that another transaction has
   * locked. `sequentialScan` allows the planner to read a whole table, which is not allowed otherwise.
   */
  async transaction<T>(
    work: (client: pg.PoolClient) => Promise<T>,
    { sequentialScan = false }: { sequentialScan?: boolean } = {},
  ): Promise<T> {
    const begin = this.#options.behindPooler ? beginPooledTransaction : beginTransaction;
    const scan = sequentialScan
      ? "; set local enable_seqscan = on; set local max_parallel_workers_per_gather = 2"
      : "";
    return this.#inTransaction(`${begin}; set local lock_timeout = '5s'${scan}`, work);
  }

  async #inTransaction<T>(begin: string, work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      const failureBefore = this.#lastFailureAt;
      const client = await this.acquire();
      let hasBegun = false;
      let broken: Error | undefined;
      try {
        await client.query(begin);
        hasBegun = true;
        const answer = await work(client);
        await client.query("commit");
        this.#reportSuccess(failureBefore);
        return answer;
      } catch (error) {
        // Nothing more is sent on a lost connection: a rollback would wait on the same dead socket.
        if (isConnectionError(error)) broken = error as Error;
        else
          await client.query(withAnswerTimeout("rollback", connectTimeoutMs)).catch((reason: Error) => {
            broken = reason;
          });
        if (hasBegun) throw this.#reportError(error);
        // Try again only if the connection was lost before `begin` succeeded: then nothing was carried out.
        if (!isConnectionError(error) || isReadTimeout(error) || !this.#mayRetry(tries))
          throw this.#markUnsent(this.#reportError(error));
      } finally {
        client.release(broken);
      }
    }
  }

  async #addDocumentFunction(client: pg.PoolClient, prepared: WeakSet<pg.PoolClient>): Promise<void> {
    try {
      await client.query(createDocumentFunction(temporaryDocumentFunction));
      prepared.add(client);
    } catch (error) {
      client.release(error as Error);
      throw error;
    }
  }

  async #readClock(): Promise<number> {
    const [row] = await this.query<{ ms: number }>(serverStatements.clock, []);
    if (!row) throw new Error("The database did not return its time");
    return row.ms;
  }
}
