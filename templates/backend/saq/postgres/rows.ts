/** Reading and changing single rows: each change is decided while the row is locked (D-21, D-22). */

import { isUtf8 } from "node:buffer";
import type { JobCounts, JobFilter, RowChange, StoredJob } from "../broker.js";
import { parseStatus } from "../job.js";
import type { Decision } from "../transitions.js";
import { editDocument } from "../wire.js";
import { isConnectionError, isLockTimeout, sleep } from "./connection.js";
import type { PostgresServer } from "./server.js";
import type { Statement } from "./statements.js";

interface RawRow {
  key: string;
  queue: string;
  status: string;
  /** bigint, as text. */
  scheduled: string;
  token: number;
  bytes: Buffer;
}

const runningPageSize = 500;
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

export class RowStore {
  #turn: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly server: PostgresServer,
    private readonly queueName: string,
    private readonly channel: string,
  ) {}

  /** Null when this queue has no such row. Waits up to 5 s for a row that somebody's transaction holds. */
  change<T>(key: string, decide: (row: StoredJob) => Decision<T>): Promise<T | null> {
    return this.#change(key, decide, this.server.statements.lockRow);
  }

  /**
   * As `change`, for what has to be written however long somebody's transaction holds the row or the database is away.
   * Holds no connection while it waits, and takes one at a time however many rows wait.
   */
  async changeWhenFree<T>(
    key: string,
    decide: (row: StoredJob) => Decision<T>,
    patienceMs: number,
  ): Promise<T | null> {
    const deadline = Date.now() + patienceMs;
    for (;;) {
      const turn = this.#turn.then(() => this.#change(key, decide, this.server.statements.lockRowNow));
      this.#turn = turn.catch(() => {});
      try {
        return await turn;
      } catch (error) {
        if (!(isLockTimeout(error) || isConnectionError(error)) || Date.now() > deadline) throw error;
        await sleep(heldPauseMs);
      }
    }
  }

  async #change<T>(key: string, decide: (row: StoredJob) => Decision<T>, lock: Statement): Promise<T | null> {
    const { statements } = this.server;
    if (isImpossible(key)) return null;
    return this.server.transaction(async (client) => {
      const { rows } = await client.query<RawRow>(lock.text, [key, this.queueName]);
      const raw = rows[0];
      if (!raw) return null;
      const row = toRow(raw);
      const { change, answer } = decide(row);
      if (!change) return answer;
      if (change.keep !== undefined && change.keep !== null && change.keep < 0) {
        await client.query(statements.deleteRow.text, [key]);
        return answer;
      }
      await client.query(statements.updateRow.text, this.#updateValues(row, change));
      if (change.status === "queued") await client.query(statements.wake.text, [this.channel]);
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

  async fetch(keys: readonly string[]): Promise<(StoredJob | null)[]> {
    const possible = keys.filter((key) => !isImpossible(key));
    const rows = await this.server.query<RawRow>(this.server.statements.fetch, [this.queueName, possible]);
    const byKey = new Map(rows.map((raw) => [raw.key, toRow(raw)]));
    return keys.map((key) => byKey.get(key) ?? null);
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

  /** Every running row, a page at a time. */
  async *running(): AsyncGenerator<StoredJob> {
    let last: { token: number; key: string } | undefined = { token: -(2 ** 31), key: "" };
    while (last) {
      const values: unknown[] = [this.queueName, last.token, last.key, runningPageSize];
      const rows: RawRow[] = await this.server.query<RawRow>(this.server.statements.running, values);
      for (const raw of rows) yield toRow(raw);
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
