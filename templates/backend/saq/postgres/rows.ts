/** Reading and changing single rows: each change is decided while the row is locked (D-21, D-22). */

import { isUtf8 } from "node:buffer";
import type { Broker, JobCounts, JobFilter, RowChange, StoredJob } from "../broker.js";
import { SaqError } from "../errors.js";
import { parseStatus } from "../job.js";
import type { Decision } from "../transitions.js";
import { editDocument } from "../wire.js";
import { eventChannel, eventText, wakeChannel } from "./channels.js";
import { backoffMs, isLockTimeout, isPassing } from "./connection.js";
import type { PostgresServer } from "./server.js";

interface RawRow {
  key: string;
  queue: string;
  status: string;
  /** bigint, as text. */
  scheduled: string;
  token: number;
  bytes: Buffer;
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

const runningPageSize = 500;
/** How long a person's change waits for a row that somebody's transaction holds, and between two looks at it. */
const heldPatienceMs = 5_000;
const heldPauseMs = 200;

const toRow = (raw: RawRow): StoredJob => ({
  key: raw.key,
  queue: raw.queue,
  // A status that nobody knows is shown as failed, so that the row can be seen and deleted.
  status: parseStatus(raw.status) ?? "failed",
  scheduled: Number(raw.scheduled),
  token: raw.token,
  // Bytes that are no text would come out changed, and be written back so: as no text they are poison (D-3).
  document: isUtf8(raw.bytes) ? raw.bytes.toString("utf8") : "",
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

export class RowStore {
  #turn: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly server: PostgresServer,
    private readonly queueName: string,
  ) {}

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
        await this.server.pause(heldPauseMs);
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
        await this.server.pause(isLockTimeout(error) ? heldPauseMs : backoffMs(attempt));
      }
    }
  }

  /** As `change`, failing at once when somebody holds the row. */
  async changeNow<T>(key: string, decide: Decide<T>): Promise<T | null> {
    const { statements } = this.server;
    if (isImpossible(key)) return null;
    return this.server.transaction(async (client) => {
      const { rows } = await client.query<RawRow>(statements.lockRow.text, [key, this.queueName]);
      const raw = rows[0];
      if (!raw) return null;
      const row = toRow(raw);
      const { change, answer } = decide(row, raw.clock);
      if (!change) return answer;
      if (change.keep !== undefined && change.keep !== null && change.keep < 0) {
        await client.query(statements.deleteRow.text, [key, ...this.#notification(row, change)]);
        return answer;
      }
      await client.query(statements.updateRow.text, [
        ...this.#updateValues(row, change),
        ...this.#notification(row, change),
      ]);
      return answer;
    });
  }

  #updateValues(row: StoredJob, change: RowChange): unknown[] {
    const document =
      change.patch === null
        ? null
        : Buffer.from(editDocument(row.document, change.patch, change.removed), "utf8");
    return [
      row.key,
      change.status,
      document,
      change.scheduled ?? null,
      change.keep !== undefined,
      change.keep ?? null,
      change.place ?? null,
    ];
  }

  /** Channel and payload, both null when there is nothing to tell. */
  #notification({ key, status: before }: StoredJob, { status }: RowChange): [string | null, string | null] {
    if (status === "queued") return [wakeChannel(this.queueName), "saq:enqueue"];
    const text = status === before ? null : eventText(key, status);
    return [text && eventChannel(this.queueName), text];
  }

  async fetch(keys: readonly string[]): Promise<(StoredJob | null)[]> {
    const possible = keys.filter((key) => !isImpossible(key));
    return inOrder(
      keys,
      await this.server.query<RawRow>(this.server.statements.fetch, [this.queueName, possible]),
    );
  }

  /** As `fetch` of storable keys, waiting for a lost database to come back. */
  async fetchAgain(keys: readonly string[]): Promise<(StoredJob | null)[]> {
    const { rows } = await this.server.queryAgain<RawRow>(this.server.statements.fetch, [
      this.queueName,
      keys,
    ]);
    return inOrder(keys, rows);
  }

  async list({ statuses, offset, limit, due }: JobFilter): Promise<StoredJob[]> {
    const rows = await this.server.query<RawRow>(this.server.statements.list, [
      this.queueName,
      statuses,
      offset,
      limit,
      due ?? null,
    ]);
    return rows.map(toRow);
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
