/**
 * Reads and changes single rows. Each change is decided while the row is locked, so that it cannot overwrite what
 * another process wrote in between.
 */

import type { Broker, JobCounts, JobFilter } from "../broker.js";
import { backoffMs } from "../core/backoff.js";
import { parseStatus } from "../core/job.js";
import type { StoredJob } from "../core/stored-job.js";
import { type RowChange, unreadableChange, withDocument } from "../core/transitions.js";
import { SaqError } from "../errors.js";
import { eventChannel, eventPayload, wakeChannel } from "./channels.js";
import { newToken } from "./claim-token.js";
import { isLockTimeout, isTransient } from "./connection/errors.js";
import { HeldRows, RowHeldError } from "./held-rows.js";
import { listRows } from "./listing.js";
import { type RawRow, type Row, toRow } from "./raw-rows.js";
import type { TableSession } from "./table-session.js";

/**
 * A row with the database's clock, epoch ms. That clock, not the clock of this process, decides whether a job is stuck.
 */
export interface TimedRow {
  row: Row;
  clock: number;
}

/** `place`: new `lock_key` of a job that is returned to its old position in the queue. */
export type RowDecision<T> = { change: (RowChange & { place?: number }) | null; answer: T };

/** Decides how to change a locked row. `clock` is the database's clock, epoch ms. */
type Decide<T> = (row: Row, clock: number) => RowDecision<T>;

/**
 * The answer of `lockRows` for one key. If `key` is null, the row was not locked: another transaction holds it
 * (`present`), or it does not exist. If `size` is null, the documents of the batch are too many bytes, and the row must
 * be requested again with fewer other rows.
 */
type LockedRow = { requested: string; present: boolean } & { [Name in keyof RawRow]: RawRow[Name] | null };

/** Results for rows that were to be changed together. A key that is in neither member has no row. */
export interface Changed<T> {
  answers: Map<string, T>;
  /** Keys of rows that another transaction holds locked. */
  held: string[];
}

type Change = NonNullable<RowDecision<unknown>["change"]>;

/** `document`: the new document; null if it stays. */
type Decided = { row: Row; change: Change; document: string | null };

const runningPageSize = 500;
/** How many rows are locked and changed in one transaction. */
const changeBatchSize = 200;
/** How long `change` waits for a row that another transaction holds: a person may be waiting for the answer. */
const heldTimeoutMs = 5_000;

/** PostgreSQL accepts no NUL in a text: a query for a key with a NUL fails instead of finding no row. */
const cannotExist = (key: string) => key.includes("\0");

const jobHeldError = (key: string, timeoutMs: number, cause: unknown): SaqError =>
  new SaqError(
    "job_held",
    `Job ${JSON.stringify(key)} is held by a transaction that has been open for over ${timeoutMs / 1_000} s; ` +
      "nothing was changed. Try again when that transaction has ended.",
    { cause },
  );

const isLocked = (raw: LockedRow): raw is LockedRow & RawRow => raw.key !== null && raw.size !== null;

/**
 * Returns a new token for a job that goes back into the queue or whose claim is revoked; null for other changes. With
 * the old token, a worker that had held the job and resumes only then could end it: Python leaves the token as it is
 * when it claims the job again.
 */
export const tokenAfter = ({ status: before }: StoredJob, { status, revoke }: RowChange): number | null =>
  revoke || (status === "queued" && before !== "queued") ? newToken() : null;

export class RowStore {
  readonly #heldRows: HeldRows;
  #lastChange: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly session: TableSession,
    private readonly queueName: string,
  ) {
    this.#heldRows = new HeldRows(session, queueName);
  }

  /**
   * Changes one row and returns the answer of `decide`; null when this queue has no such row. Waits up to 5 s for a row
   * that another transaction holds, without holding a connection meanwhile.
   *
   * @throws SaqError job_held when the row is held for longer
   */
  async change<T>(key: string, decide: Decide<T>): Promise<T | null> {
    const deadline = performance.now() + heldTimeoutMs;
    for (;;) {
      try {
        return await this.changeNow(key, decide);
      } catch (error) {
        if (!isLockTimeout(error)) throw error;
        if (performance.now() > deadline) throw jobHeldError(key, heldTimeoutMs, error);
        await this.#heldRows.waitUntilFree(key, deadline);
      }
    }
  }

  /**
   * As `change`, but waits up to `timeoutMs` for a row that another transaction holds, and also while the database is
   * unreachable. For changes that must be written and may be made twice without harm. Takes one connection at a time,
   * however many rows wait.
   *
   * @throws SaqError job_held when the row is held for longer
   */
  async changeWhenFree<T>(key: string, decide: Decide<T>, timeoutMs: number): Promise<T | null> {
    const deadline = performance.now() + timeoutMs;
    for (let attempt = 0; ; attempt++) {
      const result = this.#lastChange.then(() => this.changeNow(key, decide));
      this.#lastChange = result.catch(() => {});
      try {
        return await result;
      } catch (error) {
        if (!isTransient(error)) throw error;
        if (performance.now() > deadline)
          throw isLockTimeout(error) ? jobHeldError(key, timeoutMs, error) : error;
        await (isLockTimeout(error)
          ? this.#heldRows.waitUntilFree(key, deadline)
          : this.session.pool.pause(backoffMs(attempt)));
      }
    }
  }

  /**
   * As `change`, but fails at once when another transaction holds the row.
   *
   * @throws RowHeldError when another transaction holds the row
   */
  async changeNow<T>(key: string, decide: Decide<T>): Promise<T | null> {
    const { answers, held } = await this.changeMany([key], decide);
    if (held.length > 0) throw new RowHeldError(key);
    return answers.get(key) ?? null;
  }

  /**
   * Changes rows of this queue, up to 200 per transaction. Each change is decided while its row is locked. Never waits
   * for a row that another transaction holds.
   */
  async changeMany<T>(keys: readonly string[], decide: Decide<T>): Promise<Changed<T>> {
    const changed: Changed<T> = { answers: new Map(), held: [] };
    let remaining = keys.filter((key) => !cannotExist(key));
    while (remaining.length > 0) {
      const deferred = await this.#changeBatch(remaining.slice(0, changeBatchSize), decide, changed);
      remaining = [...deferred, ...remaining.slice(changeBatchSize)];
    }
    return changed;
  }

  /** Changes one batch. Returns the keys that are left because the documents together are too many bytes. */
  #changeBatch<T>(
    keys: readonly string[],
    decide: Decide<T>,
    { answers, held }: Changed<T>,
  ): Promise<string[]> {
    const { lockRows, updateRows } = this.session.statements;
    return this.session.pool.transaction(async (client) => {
      const { rows } = await client.query<LockedRow>(lockRows.text, [this.queueName, keys]);
      const changes: Decided[] = [];
      const deferred: string[] = [];
      for (const raw of rows) {
        if (!isLocked(raw)) {
          if (raw.present) (raw.key === null ? held : deferred).push(raw.requested);
          continue;
        }
        const row = toRow(raw);
        const { change, answer } = decide(row, raw.clock);
        answers.set(row.key, answer);
        if (change) changes.push({ row, ...withDocument(row, change, unreadableChange) });
      }
      if (changes.length > 0) await client.query(updateRows.text, this.#updateValues(changes));
      return deferred;
    });
  }

  #updateValues(changes: readonly Decided[]): unknown[] {
    const notifications = changes.flatMap(({ row, change }) => this.#notification(row, change));
    return [
      this.queueName,
      changes.map(({ row }) => row.key),
      changes.map(({ change }) => change.status),
      changes.map(({ document }) => (document === null ? null : Buffer.from(document, "utf8"))),
      changes.map(({ change }) => change.scheduled ?? null),
      changes.map(({ change }) => change.keep !== undefined),
      changes.map(({ change }) => change.keep ?? null),
      changes.map(({ row, change }) => change.place ?? tokenAfter(row, change)),
      notifications.map(({ channel }) => channel),
      notifications.map(({ text }) => text),
      changes.map(({ change }) => change.alone ?? null),
    ];
  }

  /** Returns at most one notification; none when nobody has to be notified. */
  #notification(
    { key, status: before }: StoredJob,
    { status }: RowChange,
  ): { channel: string; text: string }[] {
    if (status === "queued") return [{ channel: wakeChannel(this.queueName), text: "saq:enqueue" }];
    const text = status === before ? null : eventPayload(key, status);
    return text === null ? [] : [{ channel: eventChannel(this.queueName), text }];
  }

  async fetch(keys: readonly string[]): Promise<(Row | null)[]> {
    const possible = keys.filter((key) => !cannotExist(key));
    return rowsForKeys(
      keys,
      await this.session.pool.query<RawRow>(this.session.statements.fetch, [this.queueName, possible]),
    );
  }

  /** @throws SaqError list_too_slow when reading the list takes longer than 5 s */
  async list(filter: JobFilter): Promise<StoredJob[]> {
    return listRows(this.session, this.queueName, filter);
  }

  async listAfter({ statuses, after, limit }: Parameters<Broker["listAfter"]>[0]): Promise<StoredJob[]> {
    const values: unknown[] = [this.queueName, statuses, after, limit];
    return (await this.session.pool.query<RawRow>(this.session.statements.listAfter, values)).map(toRow);
  }

  /** Yields every running row; reads one page at a time. */
  async *running(): AsyncGenerator<TimedRow> {
    let last: { token: number; key: string } | undefined = { token: -(2 ** 31), key: "" };
    while (last) {
      const values: unknown[] = [this.queueName, last.token, last.key, runningPageSize];
      const rows: RawRow[] = await this.session.pool.query<RawRow>(this.session.statements.running, values);
      for (const raw of rows) yield { row: toRow(raw), clock: raw.clock };
      last = rows.length === runningPageSize ? rows.at(-1) : undefined;
    }
  }

  /** Reads all rows of the queue: 0.2 s for a million rows. Not for a hot path. */
  async counts(): Promise<JobCounts> {
    const counts: JobCounts = {
      queued: 0,
      scheduled: 0,
      active: 0,
      aborting: 0,
      aborted: 0,
      failed: 0,
      complete: 0,
    };
    const { rows } = await this.session.pool.transaction(
      (client) =>
        client.query<{ status: string; due: boolean; count: number }>(this.session.statements.counts.text, [
          this.queueName,
        ]),
      { sequentialScan: true },
    );
    for (const { status, due, count } of rows) {
      const known = parseStatus(status);
      if (known === null || known === "new") continue;
      counts[known === "queued" && !due ? "scheduled" : known] += count;
    }
    return counts;
  }
}

function rowsForKeys(keys: readonly string[], rows: readonly RawRow[]): (Row | null)[] {
  const byKey = new Map(rows.map((raw) => [raw.key, toRow(raw)]));
  return keys.map((key) => byKey.get(key) ?? null);
}
