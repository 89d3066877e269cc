/**
 * Stores what is paused: the table saq_pauses. It is created when something is paused for the first time.
 *
 * Workers are notified of each change on the queue's channel for events. They also read the pauses with each heartbeat,
 * in the same statement. Without notifications, they read them whenever they look for work.
 */
import type pg from "pg";
import {
  comparePauses,
  kindOf,
  type NewPause,
  nameIn,
  type Pause,
  type PauseKind,
  type PauseStore,
  type PauseTarget,
  targetOf,
} from "../core/pause.js";
import { SaqError } from "../errors.js";
import { PauseWatchers } from "../storage/pause-watchers.js";
import { eventChannel, pausesPayload } from "./channels.js";
import { isMissingTable, isRefused } from "./connection/errors.js";
import { ensureOwnTable, type OwnTable, ownTableName } from "./schema/own-tables.js";
import type { Statement } from "./sql/fragments.js";
import { pausesTable } from "./sql/pauses.js";
import type { TableSession } from "./table-session.js";

/** A statement in two forms. The first one does not name the table, which may not exist. */
export interface BesideStatement {
  look: Statement;
  read: Statement;
}

/** `pauses`: the column that these statements return in addition. Of several rows only one has a value. */
type Beside<Row> = Row & { pauses: string | null };

type StoredPause = [
  kind: PauseKind,
  name: string,
  since: number,
  until: number | null,
  by: string | null,
  reason: string | null,
];

export class PostgresPauses implements PauseStore {
  readonly #watchers: PauseWatchers;
  /** True if the table exists and this role may read it. */
  #isReadable = false;
  #hasWarned = false;
  #isWritable: Promise<boolean> | null = null;

  constructor(
    private readonly session: TableSession,
    private readonly queueName: string,
  ) {
    this.#watchers = new PauseWatchers({
      refresh: () => this.refresh(),
      isClosed: () => session.pool.closed,
      logger: session.pool.logger,
    });
  }

  async set(pause: NewPause): Promise<Pause> {
    await this.session.connect();
    const { pool, statements } = this.session;
    const { task, group, seconds, by, reason } = pause;
    const values = [this.queueName, kindOf(pause), nameIn(pause), seconds, by, reason, ...this.#notification];
    const store = async () => {
      await this.#requireWritable("pause");
      return pool.query<{ since: number; until: number | null }>(statements.setPause, values);
    };
    const [row] = await this.#orElse(store(), store);
    if (!row) throw new Error("The database did not return the stored pause");
    return { task, group, since: row.since, until: row.until, by, reason };
  }

  async remove(target: PauseTarget): Promise<boolean> {
    await this.session.connect();
    const { pool, statements } = this.session;
    if (!this.#isReadable) {
      const [found] = await pool.query<Beside<object>>(statements.lookForPauses, []);
      // Nobody has paused anything yet, so there is no table either.
      if (!found?.pauses) return false;
    }
    await this.#requireWritable("resume");
    const values = [this.queueName, kindOf(target), nameIn(target), ...this.#notification];
    const removed = pool.query<{ active: boolean }>(statements.removePause, values);
    const [row] = await this.#orElse(removed, async () => []);
    return row?.active === true;
  }

  async list(): Promise<Pause[]> {
    await this.session.connect();
    return (await this.#read()) ?? [];
  }

  async watch(listener: (pauses: readonly Pause[]) => void): Promise<() => Promise<void>> {
    await this.session.connect();
    this.#watchers.add(listener);
    const onMessage = (text: string | null) => {
      // Null: notifications may have been missed.
      if (text === null || text === pausesPayload) this.#watchers.changed();
    };
    const unsubscribe = await this.session.pool.listener?.subscribe(eventChannel(this.queueName), onMessage);
    await this.refresh();
    return async () => {
      this.#watchers.remove(listener);
      await unsubscribe?.();
    };
  }

  async refresh(): Promise<void> {
    const read = this.#watchers.begin();
    const pauses = await this.#read();
    this.#watchers.pass(read, pauses ?? []);
  }

  /** Runs a statement that also reads the pauses. Returns its rows. */
  async queryBeside<Row extends pg.QueryResultRow>(
    { look, read }: BesideStatement,
    values: unknown[],
  ): Promise<Row[]> {
    const { pool } = this.session;
    const started = this.#watchers.begin();
    const isRead = this.#isReadable;
    const query = (statement: Statement) => pool.query<Beside<Row>>(statement, values);
    const rows = await (isRead ? this.#orElse(query(read), () => query(look)) : query(look));
    const text = rows.find(({ pauses }) => pauses !== null)?.pauses ?? null;
    if (isRead && this.#isReadable) this.#watchers.pass(started, pausesOf(text));
    else if (this.#onLook(text)) this.#watchers.changed();
    else this.#watchers.pass(started, []);
    return rows;
  }

  /** Returns null if the table does not exist, or if this role may not read it. */
  async #read(): Promise<Pause[] | null> {
    const { pool, statements } = this.session;
    const readAll = async () => {
      const [row] = await pool.query<Beside<object>>(statements.listPauses, [this.queueName]);
      return pausesOf(row?.pauses ?? null);
    };
    if (this.#isReadable) {
      const pauses = await this.#orElse<Pause[] | null>(readAll(), async () => null);
      if (pauses) return pauses;
    }
    const [row] = await pool.query<Beside<object>>(statements.lookForPauses, []);
    return this.#onLook(row?.pauses ?? null) ? readAll() : null;
  }

  /** Takes what a look has returned. Returns true if the table can be read. */
  #onLook(found: string | null): boolean {
    this.#isReadable = found === "readable";
    if (found === "refused" && !this.#hasWarned) {
      this.#hasWarned = true;
      this.session.pool.logger.warn(
        { queue: this.queueName },
        "pauses have no effect in this process: its database role may not read the table saq_pauses. Run: " +
          "grant select on saq_pauses to ROLE; (ROLE is the role of this process)",
      );
    }
    return this.#isReadable;
  }

  /** If somebody has dropped the table, or has taken the right to read it from this role, returns `otherwise()`. */
  async #orElse<T>(answer: Promise<T>, otherwise: () => Promise<T>): Promise<T> {
    try {
      return await answer;
    } catch (error) {
      if (!isMissingTable(error) && !isRefused(error)) throw error;
      this.#isReadable = false;
      this.#isWritable = null;
      return otherwise();
    }
  }

  /** @throws SaqError config */
  async #requireWritable(call: "pause" | "resume"): Promise<void> {
    this.#isWritable ??= ensureOwnTable(this.session, this.#table).catch((error: unknown) => {
      this.#isWritable = null;
      throw error;
    });
    if (await this.#isWritable) return;
    // Somebody may grant the rights meanwhile.
    this.#isWritable = null;
    throw new SaqError(
      "config",
      `${call}: pauses are stored in the table saq_pauses, which the database role of this process may not create or ` +
        "use. Pause something once with a role that may create it, and run: " +
        "grant select, insert, update, delete on saq_pauses to ROLE; (ROLE is the role of this process)",
    );
  }

  get #table(): OwnTable {
    return pausesTable(ownTableName(this.session.jobsTable, "pauses"));
  }

  get #notification(): [channel: string, payload: string] {
    return [eventChannel(this.queueName), pausesPayload];
  }
}

/** Returns the pauses in the text that a statement returned. */
function pausesOf(text: string | null): Pause[] {
  const stored = JSON.parse(text ?? "[]") as StoredPause[];
  return stored
    .map(([kind, name, since, until, by, reason]) => ({ ...targetOf(kind, name), since, until, by, reason }))
    .sort(comparePauses);
}
