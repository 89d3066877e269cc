/** One set of SAQ's tables on one server: the statements that name these tables, and the connections that send them. */
import type pg from "pg";
import { SaqError } from "../errors.js";
import type { DatabaseClock } from "./clock.js";
import { markUnavailable } from "./connection.js";
import type { Connections, Persistence } from "./connections.js";
import type { Statement } from "./fragments.js";
import type { Listener } from "./listener.js";
import { ensureSchema, type SchemaOptions } from "./schema.js";
import { warnOfSequenceEnd } from "./sequence.js";
import { buildStatements, type Statements } from "./statements.js";

export interface TableOptions extends Pick<SchemaOptions, "tables" | "lockKeyspace"> {
  /** Maximum size of each part of a job (payload, result, error, meta), in bytes. */
  maxBytes?: number;
}

export class PostgresServer {
  readonly #connections: Connections;
  readonly #options: TableOptions;
  #connecting: Promise<void> | null = null;
  #statements: Statements | null = null;
  #jobsTable = "";
  #hasGroupOrder = false;

  constructor(connections: Connections, options: TableOptions) {
    this.#connections = connections;
    this.#options = options;
  }

  get statements(): Statements {
    if (!this.#statements)
      throw new SaqError("queue_closed", "The queue is not connected: await queue.connect() first");
    return this.#statements;
  }

  /** Qualified and quoted; empty before `connect`. */
  get jobsTable(): string {
    return this.#jobsTable;
  }

  get hasGroupOrder(): boolean {
    return this.#hasGroupOrder;
  }

  get options() {
    return this.#connections.options;
  }

  get listener(): Listener | null {
    return this.#connections.listener;
  }

  get clock(): DatabaseClock {
    return this.#connections.clock;
  }

  /** The database's clock, epoch ms. */
  now(): number {
    return this.#connections.clock.now();
  }

  /** Maximum time to record something while the server accepts new connections, s. */
  get recordSeconds(): number {
    return this.#connections.recordSeconds;
  }

  /** When a connection to the database failed last, by performance.now(). */
  get lastTrouble(): number {
    return this.#connections.lastTrouble;
  }

  /**
   * Connects once, and creates the tables where they are missing.
   *
   * @throws SaqError queue_closed after the connections were closed; the errors of `ensureSchema`; database_unavailable
   */
  connect(): Promise<void> {
    if (this.#connections.closed)
      throw new SaqError("queue_closed", "The queue was closed and cannot be used again");
    this.#connecting ??= this.#connect().catch((error) => {
      this.#connecting = null;
      throw error;
    });
    return this.#connecting;
  }

  /** Counts one more queue as a user. The last `release` closes the connections, even if statements are unanswered. */
  retain(): this {
    this.#connections.retain();
    return this;
  }

  release(): Promise<void> {
    return this.#connections.release();
  }

  prepared(statement: Statement, values: unknown[]): pg.QueryConfig {
    return this.#connections.prepared(statement, values);
  }

  query<Row extends pg.QueryResultRow>(statement: Statement, values: unknown[]): Promise<Row[]> {
    return this.#connections.query<Row>(statement, values);
  }

  queryAgain<Row extends pg.QueryResultRow>(
    statement: Statement,
    values: unknown[],
    persistence?: Persistence,
  ): Promise<{ rows: Row[]; resent: boolean }> {
    return this.#connections.queryAgain<Row>(statement, values, persistence);
  }

  transaction<T>(
    work: (client: pg.PoolClient) => Promise<T>,
    options?: { sequentialScan?: boolean },
  ): Promise<T> {
    return this.#connections.transaction(work, options);
  }

  pause(ms: number): Promise<void> {
    return this.#connections.pause(ms);
  }

  neverSent(error: unknown): boolean {
    return this.#connections.neverSent(error);
  }

  async #connect(): Promise<void> {
    const client = await this.#connections.take();
    try {
      const { plain, logger } = this.options;
      const names = await ensureSchema(client, { ...this.#options, plain, logger });
      if (names.temporaryStamp) this.#connections.stampOnEach();
      this.#jobsTable = names.jobs;
      this.#hasGroupOrder = names.hasGroupOrder;
      this.#statements = buildStatements(names, this.#options.maxBytes);
      await warnOfSequenceEnd(client, names.jobs, logger);
    } catch (error) {
      throw markUnavailable(error);
    } finally {
      client.release();
    }
    await this.#connections.open();
  }
}
