/**
 * Claims jobs. Ungrouped jobs are claimed in one statement. For grouped jobs, free groups are found and locked first.
 */

import type { ClaimRequest, ClaimResult } from "../broker.js";
import type { Claim, ClaimedJob } from "../core/claim.js";
import { columnSecond } from "../core/job.js";
import { isTakenOver, read } from "../core/stored-job.js";
import { unreadableChange } from "../core/transitions.js";
import { editDocument, encodeChange } from "../core/wire.js";
import { describe, type Logger } from "../logger.js";
import { newToken } from "./claim-token.js";
import { isConnectionError } from "./connection/errors.js";
import type { Row } from "./raw-rows.js";
import { newReceipt, receiptOf } from "./receipt.js";
import type { RowDecision, RowStore } from "./rows.js";
import { decodeDocument, suffixOf } from "./sql/document-suffix.js";
import type { Reconciler } from "./sweep/reconciler.js";
import type { TableSession } from "./table-session.js";

interface ClaimedRow {
  key: string;
  /** Position in the claim, from 1. */
  ordinal: number;
  place: number;
  due: string;
  document: string | null;
  /** Epoch ms; null if the document was not fresh (see document-suffix.ts). */
  started: string | null;
}

/** How many jobs at the front of the queue are searched for free groups. After that the list of groups is searched. */
const frontSize = (limit: number) => Math.min(Math.max(20 * limit, 100), 1_000);

/**
 * If a claim returns fewer jobs than requested, but documents of more characters than this, it may have stopped at its
 * byte limit. More jobs may then be waiting.
 */
const largeResponseChars = 1024 * 1024;

export class Claimer {
  /** Group key at which the next search through the groups begins. After the last group, it begins at the first one. */
  #cursor = "";

  constructor(
    private readonly session: TableSession,
    private readonly rows: RowStore,
    private readonly reconciler: Reconciler,
    private readonly queueName: string,
    private readonly groupConcurrency: number,
    private readonly logger: Logger,
  ) {}

  async claim(request: ClaimRequest): Promise<ClaimResult> {
    const { grouped, limit, workerId, mayWait } = request;
    const token = newToken(mayWait);
    this.reconciler.onClaimSent(token, workerId);
    let rows: ClaimedRow[];
    try {
      rows = grouped ? await this.#claimGrouped(request, token) : await this.#claimUngrouped(request, token);
    } catch (error) {
      this.reconciler.onClaimFailed(token, !this.session.pool.neverSent(error));
      throw error;
    }
    try {
      rows.sort((a, b) => a.ordinal - b.ordinal);
      const jobs = this.#jobsOf(rows, token, workerId);
      const more = grouped ? rows.length > 0 : rows.length === limit || lengthOf(jobs) > largeResponseChars;
      if (jobs.length < rows.length) await this.#editInProcess(jobs, rows, token, workerId);
      return { jobs, more };
    } finally {
      // The caller holds the jobs only from now on. If `onClaimResponse` were called earlier, the reconciler could put
      // them back into the queue, and they would run twice.
      this.reconciler.onClaimResponse(token, rows.length);
    }
  }

  /** Returns the jobs of the rows whose document the claim could change in SQL. */
  #jobsOf(rows: ClaimedRow[], token: number, workerId: string): ClaimedJob[] {
    const jobs: ClaimedJob[] = [];
    const started = rows.find((row) => row.started !== null)?.started ?? null;
    const claimSuffix = started === null ? null : suffixOf(workerId, started);
    for (const { key, place, due, started, document: received } of rows) {
      const suffix = started === null ? null : claimSuffix;
      const document = received !== null && suffix ? decodeDocument(received) : received;
      if (document === null) continue;
      const receipt = newReceipt({ token, workerId, place, suffix, transaction: null });
      jobs.push({ key, receipt, due: Number(due), document, firstStart: suffix?.started ?? null });
    }
    return jobs;
  }

  #claimUngrouped(
    { workerId, limit, priorities: [lowest, highest] }: ClaimRequest,
    token: number,
  ): Promise<ClaimedRow[]> {
    return this.session.pool.query<ClaimedRow>(this.session.statements.claim, [
      this.queueName,
      lowest,
      highest,
      limit,
      token,
      JSON.stringify({ status: "active", worker_id: workerId }),
    ]);
  }

  async #claimGrouped(
    { workerId, limit, priorities: [lowest, highest] }: ClaimRequest,
    token: number,
  ): Promise<ClaimedRow[]> {
    const { session, queueName } = this;
    const { groupHeads, lockGroups, claimGroups } = session.statements;
    const found = await session.pool.query<{ reached: string; key: string | null; group_key: string | null }>(
      groupHeads,
      [
        queueName,
        lowest,
        highest,
        this.#cursor,
        limit,
        session.hasGroupOrder ? frontSize(limit) : 0,
        this.groupConcurrency,
      ],
    );
    this.#cursor = found[0]?.reached ?? "";
    const heads = found.filter((row) => row.key !== null);
    if (heads.length === 0) return [];
    return session.pool.transaction(async (client) => {
      const locked = await client.query<{ group_key: string }>(
        session.pool.prepared(lockGroups, [
          queueName,
          heads.map((row) => row.key),
          heads.map((row) => row.group_key),
          limit,
        ]),
      );
      if (locked.rows.length === 0) return [];
      const claimed = await client.query<ClaimedRow>(
        session.pool.prepared(claimGroups, [
          queueName,
          lowest,
          highest,
          limit,
          token,
          JSON.stringify({ status: "active", worker_id: workerId }),
          locked.rows.map((row) => row.group_key),
          this.groupConcurrency,
        ]),
      );
      return claimed.rows;
    });
  }

  /**
   * Changes documents that SQL could not change, because they contain NaN, an escaped NUL or a lone surrogate, or
   * because they are not jobs. A document that can be read is edited here as text, so that its other members stay as
   * they are. One that cannot be read is set aside as failed, and the rest of the batch continues. At most 200 rows are
   * changed per transaction, because a good job may wait behind thousands of bad ones.
   */
  async #editInProcess(
    jobs: ClaimedJob[],
    rows: ClaimedRow[],
    token: number,
    workerId: string,
  ): Promise<void> {
    const changed = new Set(jobs.map(({ key }) => key));
    const rowOf = new Map(rows.filter(({ key }) => !changed.has(key)).map((row) => [row.key, row]));
    const now = Math.round(this.session.pool.clock.now());
    const decide = (stored: Row): RowDecision<ClaimedJob | "unreadable" | null> => {
      const row = rowOf.get(stored.key);
      if (!row || stored.token !== token || stored.status !== "active") return { change: null, answer: null };
      const job = read(stored);
      if (!job) return { change: unreadableChange, answer: "unreadable" };
      const change = encodeChange({
        status: "active",
        workerId,
        attempts: job.attempts + 1,
        started: now,
        touched: now,
      });
      const document = editDocument(stored.document, change.patch, change.removed);
      const { key, place, due } = row;
      return {
        change: { status: "active", ...change, scheduled: columnSecond(job) },
        answer: {
          key,
          receipt: newReceipt({ token, workerId, place, suffix: null, transaction: null }),
          due: Number(due),
          document,
          firstStart: null,
        },
      };
    };
    try {
      const { answers } = await this.rows.changeMany([...rowOf.keys()], decide);
      const unreadable: string[] = [];
      for (const [key, answer] of answers) {
        if (answer === "unreadable") unreadable.push(key);
        else if (answer) jobs.push(answer);
      }
      this.#logUnreadable(unreadable);
      const ordinalOf = new Map(rows.map((row) => [row.key, row.ordinal]));
      jobs.sort((a, b) => (ordinalOf.get(a.key) ?? 0) - (ordinalOf.get(b.key) ?? 0));
    } catch (error) {
      // No worker holds these jobs, so the reconciler puts them back soon. The other jobs do not wait for that.
      const line = { ...describe(error), jobs: [...rowOf.keys()].slice(0, 20), count: rowOf.size };
      const message = "could not record the start of claimed jobs; they will be claimed again";
      // The pool logs an outage itself. Another error may occur at every claim, so it is logged as a warning.
      if (isConnectionError(error)) this.logger.debug(line, message);
      else this.logger.warn(line, message);
    }
  }

  /** @see Broker.setAside */
  async setAside(claims: readonly Claim[]): Promise<void> {
    const tokenOf = new Map(claims.map((claim) => [claim.key, receiptOf(claim).token]));
    const decide = (row: Row): RowDecision<boolean> => {
      const isOurs = row.token === tokenOf.get(row.key) && row.status === "active";
      return { change: isOurs ? unreadableChange : null, answer: isOurs };
    };
    const { answers } = await this.rows.changeMany([...tokenOf.keys()], decide);
    this.#logUnreadable([...answers].flatMap(([key, isOurs]) => (isOurs ? [key] : [])));
  }

  #logUnreadable(keys: readonly string[]): void {
    if (keys.length === 0) return;
    this.logger.error(
      { jobs: keys.slice(0, 20), count: keys.length },
      "stored documents are not SAQ jobs; they were set aside as failed, and their bytes were not changed",
    );
  }

  /** @see Broker.renew */
  async renew(jobs: readonly ClaimedJob[]): Promise<ClaimedJob[]> {
    const now = Math.round(this.session.pool.clock.now());
    const jobOf = new Map(jobs.map((job) => [job.key, job]));
    const decide = (row: Row): RowDecision<ClaimedJob | null> => {
      const job = jobOf.get(row.key);
      const owned = job && receiptOf(job);
      const isOurs =
        owned && row.token === owned.token && row.status === "active" && !isTakenOver(row, owned);
      if (!isOurs) return { change: null, answer: null };
      // The claim wrote the database's own time. Our estimate of it may be some milliseconds behind that.
      const started = Math.max(now, read(row)?.started ?? 0);
      const { patch } = encodeChange({ started, touched: started });
      const document = editDocument(row.document, patch, []);
      return {
        change: { status: "active", patch, removed: [] },
        answer: {
          ...job,
          receipt: newReceipt({ ...owned, suffix: null }),
          document,
          firstStart: null,
        },
      };
    };
    const { answers } = await this.rows.changeMany([...jobOf.keys()], decide);
    return jobs.flatMap(({ key }) => answers.get(key) ?? []);
  }
}

const lengthOf = (jobs: readonly ClaimedJob[]): number =>
  jobs.reduce((length, { document }) => length + document.length, 0);
