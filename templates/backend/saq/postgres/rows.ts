/** Reading and changing single rows: each change is decided while the row is locked (D-21, D-22). */

import { isUtf8 } from "node:buffer";
import { backoffMs } from "../backoff.js";
import type { Broker, JobCounts, JobFilter, RowChange, StoredJob } from "../broker.js";
import { SaqError } from "../errors.js";
import { parseStatus } from "../job.js";
import type { Decision } from "../transitions.js";
import { editDocument } from "../wire.js";
import { eventChannel, eventText, wakeChannel } from "./channels.js";
import { isLockTimeout, isPassing } from "./connection.js";
import { HeldRows, RowHeldError } from "./held-rows.js";
import { listRows } from "./listing.js";
import type { PostgresServer } from "./server.js";
import { newToken } from "./token.js";

interface RawRow {
  key: string;
  queue: string;
  status: string;
  /** bigint, as text. */
  scheduled: string;
  token: number;
  /** Null of a document that is too large to be read, or to be read with the others of a list. */
  bytes: Buffer | null;
  size: number;
  /** The database's clock at the look, epoch ms. */
  clock: number;
}

/** A row with the database's clock, epoch ms: whether a job is stuck is not for this process's clock to say (5.2). */
export interface TimedRow {
  row: StoredJob;
  clock: number;
}

/** `clock` is the database's, epoch ms. */
type Decide<T> = (row: StoredJob, clock: number) => Decision<T>;

/**
 * A row that `lockRows` was asked for. Without `key` it was not locked, without `size` it is to be looked at with fewer
 * others.
 */
type LockedRow = { asked: string; present: boolean } & { [Name in keyof RawRow]: RawRow[Name] | null };

/** What became of rows that were to be changed together. Keys that are in neither do not exist. */
export interface Changed<T> {
  answers: Map<string, T>;
  /** Rows that somebody's transaction holds. */
  held: string[];
}

const runningPageSize = 500;
/** Rows that are locked and changed in one transaction. */
const changedTogether = 200;
/** How long a person's change waits for a row that somebody's transaction holds. */
const heldPatienceMs = 5_000;

const toRow = (raw: RawRow): StoredJob => ({
  key: raw.key,
  queue: raw.queue,
  // A status that nobody knows is shown as failed, so that the row can be seen and deleted.
  status: parseStatus(raw.status) ?? "failed",
  scheduled: Number(raw.scheduled),
  token: raw.token,
  // Bytes that are no text would come out changed, and be written back so: as no text they are poison (D-3).
  document: raw.bytes && isUtf8(raw.bytes) ? raw.bytes.toString("utf8") : "",
  ...(raw.bytes ? {} : { unreadBytes: raw.size }),
});

/** PostgreSQL takes no NUL in a text, not even to say that there is no such row. */
const isImpossible = (key: string) => key.includes("\0");

const jobHeld = (key: string, cause: unknown): SaqError =>
  new SaqError(
    "job_held",
    `Job ${JSON.stringify(key)} is held by a transaction that has been open for over ${heldPatienceMs / 1_000} s; ` +
      "nothing was changed. Try again when that transaction has ended.",
    { cause },
  );

const isLocked = (raw: LockedRow): raw is LockedRow & RawRow => raw.key !== null && raw.size !== null;

/**
 * A job that goes back into the queue gets another token: a worker that held it, and wakes only when Python has claimed
 * it again, which leaves the token as it is, must not end the run of the other one.
 */
const freshToken = ({ status: before }: StoredJob, { status }: RowChange): number | null =>
  status === "queued" && before !== "queued" ? newToken() : null;

export class RowStore {
  readonly #held: HeldRows;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly server: PostgresServer,
    private readonly queueName: string,
  ) {
    this.#held = new HeldRows(server, queueName);
  }

  /**
   * Null when this queue has no such row. Waits up to 5 s for a row that somebody's transaction holds, without holding
   * a connection meanwhile.
   *
   * @throws SaqError job_held when it is held longer than that
   */
  async change<T>(key: string, decide: Decide<T>): Promise<T | null> {
    const deadline = performance.now() + heldPatienceMs;
    for (;;) {
      try {
        return await this.changeNow(key, decide);
      } catch (error) {
        if (!isLockTimeout(error)) throw error;
        if (performance.now() > deadline) throw jobHeld(key, error);
        await this.#held.free(key, deadline);
      }
    }
  }

  /**
   * As `change`, for what has to be written however long somebody's transaction holds the row or the database is away,
   * and does no harm when it is done twice. Takes one connection at a time however many rows wait.
   */
  async changeWhenFree<T>(key: string, decide: Decide<T>, patienceMs: number): Promise<T | null> {
    const deadline = performance.now() + patienceMs;
    for (let attempt = 0; ; attempt++) {
      const turn = this.#turn.then(() => this.changeNow(key, decide));
      this.#turn = turn.catch(() => {});
      try {
        return await turn;
      } catch (error) {
        if (!isPassing(error) || performance.now() > deadline) throw error;
        await (isLockTimeout(error) ? this.#held.free(key, deadline) : this.server.pause(backoffMs(attempt)));
      }
    }
  }

  /**
   * As `change`, failing at once when somebody holds the row.
   *
   * @throws RowHeldError when somebody's transaction holds the row
   */
  async changeNow<T>(key: string, decide: Decide<T>): Promise<T | null> {
    const { answers, held } = await this.changeMany([key], decide);
    if (held.length > 0) throw new RowHeldError(key);
    return answers.get(key) ?? null;
  }

  /**
   * Changes rows of this queue, some hundred per transaction, each as decided while it is locked. Never waits for a row
   * that somebody's transaction holds.
   */
  async changeMany<T>(keys: readonly string[], decide: Decide<T>): Promise<Changed<T>> {
    const changed: Changed<T> = { answers: new Map(), held: [] };
    let left = keys.filter((key) => !isImpossible(key));
    while (left.length > 0) {
      const tooMuch = await this.#changeTogether(left.slice(0, changedTogether), decide, changed);
      left = [...tooMuch, ...left.slice(changedTogether)];
    }
    return changed;
  }

  /** Answers the keys whose documents would have been too many bytes at once. */
  #changeTogether<T>(
    keys: readonly string[],
    decide: Decide<T>,
    { answers, held }: Changed<T>,
  ): Promise<string[]> {
    const { lockRows, updateRows } = this.server.statements;
    return this.server.transaction(async (client) => {
      const { rows } = await client.query<LockedRow>(lockRows.text, [this.queueName, keys]);
      const changes: { row: StoredJob; change: RowChange }[] = [];
      const tooMuch: string[] = [];
      for (const raw of rows) {
        if (!isLocked(raw)) {
          if (raw.present) (raw.key === null ? held : tooMuch).push(raw.asked);
          continue;
        }
        const row = toRow(raw);
        const { change, answer } = decide(row, raw.clock);
        answers.set(row.key, answer);
        if (change) changes.push({ row, change });
      }
      if (changes.length > 0) await client.query(updateRows.text, this.#updateValues(changes));
      return tooMuch;
    });
  }

  #updateValues(changes: readonly { row: StoredJob; change: RowChange }[]): unknown[] {
    const notices = changes.flatMap(({ row, change }) => this.#notice(row, change));
    return [
      this.queueName,
      changes.map(({ row }) => row.key),
      changes.map(({ change }) => change.status),
      changes.map(({ row, change: { patch, removed } }) =>
        patch === null ? null : Buffer.from(editDocument(row.document, patch, removed), "utf8"),
      ),
      changes.map(({ change }) => change.scheduled ?? null),
      changes.map(({ change }) => change.keep !== undefined),
      changes.map(({ change }) => change.keep ?? null),
      changes.map(({ row, change }) => change.place ?? freshToken(row, change)),
      notices.map(({ channel }) => channel),
      notices.map(({ text }) => text),
      changes.map(({ change }) => change.alone ?? null),
    ];
  }

  /** At most one, and none when there is nothing to tell. */
  #notice({ key, status: before }: StoredJob, { status }: RowChange): { channel: string; text: string }[] {
    if (status === "queued") return [{ channel: wakeChannel(this.queueName), text: "saq:enqueue" }];
    const text = status === before ? null : eventText(key, status);
    return text === null ? [] : [{ channel: eventChannel(this.queueName), text }];
  }

  async fetch(keys: readonly string[]): Promise<(StoredJob | null)[]> {
    const possible = keys.filter((key) => !isImpossible(key));
    return inOrder(
      keys,
      await this.server.query<RawRow>(this.server.statements.fetch, [this.queueName, possible]),
    );
  }

  /** @throws SaqError list_too_slow */
  async list(filter: JobFilter): Promise<StoredJob[]> {
    return (await listRows<RawRow>(this.server, this.queueName, filter)).map(toRow);
  }

  async page({ statuses, after, limit }: Parameters<Broker["page"]>[0]): Promise<StoredJob[]> {
    const values: unknown[] = [this.queueName, statuses, after, limit];
    return (await this.server.query<RawRow>(this.server.statements.page, values)).map(toRow);
  }

  /** Every running row, a page at a time. */
  async *running(): AsyncGenerator<TimedRow> {
    let last: { token: number; key: string } | undefined = { token: -(2 ** 31), key: "" };
    while (last) {
      const values: unknown[] = [this.queueName, last.token, last.key, runningPageSize];
      const rows: RawRow[] = await this.server.query<RawRow>(this.server.statements.running, values);
      for (const raw of rows) yield { row: toRow(raw), clock: raw.clock };
      last = rows.length === runningPageSize ? rows.at(-1) : undefined;
    }
  }

  /** Reads all rows of the queue: 0.2 s for a million. Not for a hot path. */
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
    const { rows } = await this.server.transaction(
      (client) =>
        client.query<{ status: string; due: boolean; count: number }>(this.server.statements.counts.text, [
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

function inOrder(keys: readonly string[], rows: readonly RawRow[]): (StoredJob | null)[] {
  const byKey = new Map(rows.map((raw) => [raw.key, toRow(raw)]));
  return keys.map((key) => byKey.get(key) ?? null);
}
