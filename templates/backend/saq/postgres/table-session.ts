/** One set of SAQ's tables on one server: the statements that name these tables, and the connections that send them. */
import { defaultMaxBytes } from "../core/byte-size.js";
import { SaqError } from "../errors.js";
import { markUnavailable } from "./connection/errors.js";
import type { ConnectionPool } from "./connection/pool.js";
import { ensureSchema, type SchemaOptions } from "./schema/schema.js";
import { warnOfSequenceEnd } from "./schema/sequence.js";
import { buildStatements, type Statements } from "./sql/statements.js";

export interface TableOptions extends Pick<SchemaOptions, "tables" | "lockKeyspace"> {
  /** Maximum size of each part of a job (payload, result, error, meta), in bytes. */
  maxBytes?: number;
}

export class TableSession {
  readonly #options: TableOptions;
  #connecting: Promise<void> | null = null;
  #statements: Statements | null = null;
  #jobsTable = "";
  #hasGroupOrder = false;
  #hasFailedOrder = false;

  constructor(
    readonly pool: ConnectionPool,
    options: TableOptions,
  ) {
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

  /** Maximum size of each part of a job (payload, result, error, meta), in bytes. */
  get maxBytes(): number {
    return this.#options.maxBytes ?? defaultMaxBytes;
  }

  get hasGroupOrder(): boolean {
    return this.#hasGroupOrder;
  }

  get hasFailedOrder(): boolean {
    return this.#hasFailedOrder;
  }

  /**
   * Connects once, and creates the tables where they are missing.
   *
   * @throws SaqError queue_closed after the connections were closed; the errors of `ensureSchema`; database_unavailable
   */
  connect(): Promise<void> {
    this.pool.checkOpen();
    this.#connecting ??= this.#connect().catch((error) => {
      this.#connecting = null;
      throw error;
    });
    return this.#connecting;
  }

  /** Counts one more queue as a user. The last `release` closes the connections, even if statements are unanswered. */
  retain(): this {
    this.pool.retain();
    return this;
  }

  async #connect(): Promise<void> {
    const client = await this.pool.acquire();
    try {
      const { behindPooler, logger } = this.pool;
      const names = await ensureSchema(client, { ...this.#options, behindPooler, logger });
      if (names.hasTemporaryFunction) this.pool.addDocumentFunctionToEach();
      this.#jobsTable = names.jobs;
      this.#hasGroupOrder = names.hasGroupOrder;
      this.#hasFailedOrder = names.hasFailedOrder;
      this.#statements = buildStatements(names, this.maxBytes);
      await warnOfSequenceEnd(client, names.jobs, logger);
    } catch (error) {
      throw markUnavailable(error);
    } finally {
      client.release();
    }
    await this.pool.open();
  }
}
