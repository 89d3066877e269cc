/**
 * One PostgreSQL server as one process sees it: a small pool, the LISTEN connection, the clock offset. Queues with the
 * same DSN share it.
 */
import { setMaxListeners } from "node:events";
import pg from "pg";
import { SaqError } from "../errors.js";
import type { Logger } from "../logger.js";
import { within } from "../within.js";
import { backoffMs, clientConfig, hangUp, isConnectionError, sleep } from "./connection.js";
import { Listener } from "./listener.js";
import { ensureSchema, type Names, stampStatement, temporaryStamp } from "./schema.js";
import { buildStatements, type Statement, type Statements } from "./statements.js";

export interface ServerOptions {
  dsn: string;
  /** Most connections in all, the LISTEN connection included. */
  maxSize: number;
  minSize: number;
  /** No LISTEN, no session state, no named statements: for transaction poolers. */
  plain: boolean;
  logger: Logger;
}

/** How stubbornly a statement is sent again. */
export interface Persistence {
  /** ms */
  patience?: number;
  again?: (error: unknown, sent: number) => boolean;
}

const clockEveryMs = 60_000;

/** How long an answer may take while the connections are closed. */
const closePatienceMs = 1_000;

/** How long a statement that may be sent again waits for a lost database: less than browsers' and proxies' limits. */
const patienceMs = 8_000;

export class PostgresServer {
  readonly options: ServerOptions;
  readonly #pool: pg.Pool;
  #users = 0;
  #connecting: Promise<void> | null = null;
  #listener: Listener | null = null;
  #statements: Statements | null = null;
  #jobsTable = "";
  #offsetMs = 0;
  #clock: NodeJS.Timeout | null = null;
  /** Also ends the waits between tries, so that a close does not sit them out. */
  readonly #closing = new AbortController();
  readonly #clients = new Set<pg.PoolClient>();
  readonly #unsent = new WeakSet<object>();
  #lastTrouble = Number.NEGATIVE_INFINITY;
  #temporaryStamp = false;
  #hasGroupOrder = false;

  constructor(options: ServerOptions) {
    this.options = options;
    this.#pool = new pg.Pool({
      ...clientConfig(options.dsn, { plain: options.plain }),
      max: options.plain ? options.maxSize : options.maxSize - 1,
      min: options.minSize,
      idleTimeoutMillis: 30_000,
      allowExitOnIdle: false,
      // Awaited by the pool before the connection's first use; a query sent in its "connect" event would overlap.
      onConnect: (client) => this.#prepare(client),
    });
    // Any number of statements may wait at once for a database that is away.
    setMaxListeners(0, this.#closing.signal);
    // An idle connection that breaks is replaced at the next use; without a listener the event would end the process.
    this.#pool.on("error", (error) => options.logger.debug({ err: error }, "idle connection lost"));
    // One that breaks between two statements of a transaction emits an error too, and pg-pool listens only while a
    // connection is idle. The next statement on it fails, which is where it is dealt with.
    this.#pool.on("connect", (client) => {
      this.#clients.add(client);
      client.on("error", () => {});
      client.on("end", () => this.#clients.delete(client));
    });
  }

  get statements(): Statements {
    if (!this.#statements)
      throw new SaqError("queue_closed", "The queue is not connected: await queue.connect() first");
    return this.#statements;
  }

  /** Qualified and quoted. */
  get jobsTable(): string {
    return this.#jobsTable;
  }

  get hasGroupOrder(): boolean {
    return this.#hasGroupOrder;
  }

  get listener(): Listener | null {
    return this.#listener;
  }

  get #closed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** The database's clock, epoch ms. */
  now(): number {
    return Date.now() + this.#offsetMs;
  }

  connect(): Promise<void> {
    if (this.#closed) throw new SaqError("queue_closed", "The queue was closed and cannot be used again");
    this.#connecting ??= this.#connect().catch((error) => {
      this.#connecting = null;
      throw error;
    });
    return this.#connecting;
  }

  /** Counts a queue in; `release` counts it out, and the last one closes the connections, answered or not. */
  retain(): this {
    this.#users++;
    return this;
  }

  async release(): Promise<void> {
    if (--this.#users > 0 || this.#closed) return;
    this.#closing.abort();
    if (this.#clock) clearInterval(this.#clock);
    const closed = Promise.all([this.#listener?.close(closePatienceMs), this.#pool.end()]);
    await within(closePatienceMs, closed);
    for (const client of this.#clients) void hangUp(client, closePatienceMs);
  }

  /** For a connection of this pool: prepared there once, where that is allowed. */
  prepared({ name, text }: Statement, values: unknown[]): pg.QueryConfig {
    return this.options.plain ? { text, values } : { name, text, values };
  }

  /** Runs a statement that is prepared once per connection. */
  async query<Row extends pg.QueryResultRow>(statement: Statement, values: unknown[]): Promise<Row[]> {
    const client = await this.#take();
    let broken: Error | undefined;
    try {
      return (await client.query<Row>(this.prepared(statement, values))).rows;
    } catch (error) {
      // Also after an answer that is an error: a plan that a connection keeps may be what is wrong.
      broken = error as Error;
      throw this.#noted(error);
    } finally {
      client.release(broken);
    }
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
        if (!again(error, attempt + 1) || performance.now() + wait > deadline || this.#closed) throw error;
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

  async #take(): Promise<pg.PoolClient> {
    try {
      return await this.#pool.connect();
    } catch (error) {
      if (typeof error === "object" && error !== null) this.#unsent.add(error);
      throw this.#noted(error);
    }
  }

  #noted(error: unknown): unknown {
    if (isConnectionError(error)) this.#lastTrouble = performance.now();
    return error;
  }

  /**
   * Runs `work` in a transaction of its own, which waits at most 5 s for a row that somebody holds. `sequentialScan`
   * lets the planner read a whole table, which is ruled out otherwise.
   */
  async transaction<T>(
    work: (client: pg.PoolClient) => Promise<T>,
    { sequentialScan = false }: { sequentialScan?: boolean } = {},
  ): Promise<T> {
    const client = await this.#take();
    let broken: Error | undefined;
    try {
      const scan = sequentialScan ? "; set local enable_seqscan = on" : "";
      // A role may have another isolation by default, under which a statement does not see what others committed after
      // the first one of the transaction: claims of groups rely on it (D-2).
      await client.query(`begin isolation level read committed; set local lock_timeout = '5s'${scan}`);
      const answer = await work(client);
      await client.query("commit");
      return answer;
    } catch (error) {
      await client.query("rollback").catch((reason: Error) => {
        broken = reason;
      });
      throw this.#noted(error);
    } finally {
      client.release(broken);
    }
  }

  async #connect(): Promise<void> {
    const client = await this.#pool.connect();
    let names: Names;
    try {
      names = await ensureSchema(client);
      this.#jobsTable = names.jobs;
      this.#statements = buildStatements(names);
      this.#temporaryStamp = names.temporaryStamp;
      this.#hasGroupOrder = names.hasGroupOrder;
      await this.#prepare(client);
    } finally {
      client.release();
    }
    if (!this.options.plain) {
      this.#listener = new Listener({
        config: clientConfig(this.options.dsn, { plain: false }),
        vouch: this.statements.vouch.text,
        unvouch: this.statements.unvouch.text,
        logger: this.options.logger,
      });
    }
    await this.#measureClock();
    this.#clock = setInterval(() => void this.#measureClock().catch(() => {}), clockEveryMs).unref();
  }

  async #prepare(client: pg.ClientBase): Promise<void> {
    if (this.#temporaryStamp) await client.query(stampStatement(temporaryStamp));
  }

  /** The offset to the database's clock, by the quickest of three answers (D-29). */
  async #measureClock(): Promise<void> {
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 3; round++) {
      const sent = Date.now();
      const [row] = await this.query<{ ms: number }>(this.statements.clock, []);
      const took = Date.now() - sent;
      if (!row || took >= best) continue;
      best = took;
      this.#offsetMs = row.ms - (sent + took / 2);
    }
    if (Math.abs(this.#offsetMs) > 1_000) {
      this.options.logger.warn(
        { offsetMs: Math.round(this.#offsetMs) },
        "this machine's clock and the database's differ by more than a second; the database's decides",
      );
    }
  }
}
