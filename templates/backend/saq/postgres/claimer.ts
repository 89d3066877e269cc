/** Takes jobs: an ungrouped batch in one statement, grouped ones one per free group under the groups' locks. */
import { randomInt } from "node:crypto";
import type { ClaimedJob, ClaimRequest } from "../broker.js";
import { type JobFields, latestSecond } from "../job.js";
import type { Logger } from "../logger.js";
import { isTakenOver, loseJob, read, setAside } from "../transitions.js";
import { editDocument, encodeChange } from "../wire.js";
import { backoffMs, isConnectionError, sleep } from "./connection.js";
import { endingOf, fromEscaped } from "./ending.js";
import type { RowStore } from "./rows.js";
import type { PostgresServer } from "./server.js";

interface ClaimedRow {
  key: string;
  nth: number;
  place: number;
  due: string;
  document: string | null;
  /** Epoch ms; null of a document that was not fresh (ending.ts). */
  started: string | null;
}

/** The document's due time as its column can hold it. */
const columnSecond = (job: JobFields) => Math.min(Math.max(Math.floor(job.scheduled), 0), latestSecond);

/** How many jobs in order are looked through for free groups before the groups themselves are. */
const front = (limit: number) => Math.min(Math.max(20 * limit, 100), 1_000);

/** A fresh token for every claim, over all of int4: two of one value meet once in four thousand million claims. */
const newToken = () => randomInt(-(2 ** 31), 2 ** 31);

/**
 * A server that has lost its client carries the statement to its end first, so a look may find nothing yet. One made
 * that long after the cut is the last, ms: no statement of ours is waited for any longer (query_timeout).
 */
const lastLookMs = 30_000;
const betweenLooksMs = 1_000;

export class Claimer {
  /** Where the walk over the groups stands; it goes round. */
  #cursor = "";
  /** Tokens of claims that may have been carried out although their answer never came, and when that was. */
  readonly #unsettled = new Map<number, { workerId: string; cutAt: number }>();
  readonly #closing = new AbortController();
  #looking: Promise<void> | null = null;

  constructor(
    private readonly server: PostgresServer,
    private readonly rows: RowStore,
    private readonly queueName: string,
    private readonly groupConcurrency: number,
    private readonly logger: Logger,
  ) {}

  async claim(request: ClaimRequest): Promise<ClaimedJob[]> {
    const token = newToken();
    let claimed = false;
    try {
      const rows = request.grouped
        ? await this.#claimGrouped(request, token)
        : await this.#claimUngrouped(request, token);
      claimed = true;
      rows.sort((a, b) => a.nth - b.nth);
      return await this.#stamped(rows, token, request.workerId);
    } catch (error) {
      // Nobody else knows these jobs, and no sweeper touches them while this worker lives: what carries this token is
      // given back as soon as the database answers again.
      if (claimed || !this.server.neverSent(error)) this.#cut(token, request.workerId);
      throw error;
    }
  }

  /** Ends the looks for claims that were cut off. */
  close(): void {
    this.#closing.abort();
  }

  async #stamped(rows: ClaimedRow[], token: number, workerId: string): Promise<ClaimedJob[]> {
    const jobs: ClaimedJob[] = [];
    const started = rows.find((row) => row.started !== null)?.started ?? null;
    const fresh = started === null ? null : endingOf(workerId, started);
    for (const { key, place, due, started, document: answered } of rows) {
      const ending = started === null ? null : fresh;
      const text = answered !== null && ending ? fromEscaped(answered) : answered;
      const document = text ?? (await this.#stampBySelf(key, token, workerId));
      if (document === null) continue;
      jobs.push({
        key,
        token,
        workerId,
        place,
        due: Number(due),
        document,
        ending: text === null ? null : ending,
      });
    }
    return jobs;
  }

  #claimUngrouped(
    { workerId, limit, priorities: [lowest, highest] }: ClaimRequest,
    token: number,
  ): Promise<ClaimedRow[]> {
    return this.server.query<ClaimedRow>(this.server.statements.claim, [
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
    const { server, queueName } = this;
    const { groupHeads, lockGroups, claimGroups } = server.statements;
    const found = await server.query<{ reached: string; key: string | null; group_key: string | null }>(
      groupHeads,
      [
        queueName,
        lowest,
        highest,
        this.#cursor,
        limit,
        server.hasGroupOrder ? front(limit) : 0,
        this.groupConcurrency,
      ],
    );
    this.#cursor = found[0]?.reached ?? "";
    const heads = found.filter((row) => row.key !== null);
    if (heads.length === 0) return [];
    return server.transaction(async (client) => {
      const locked = await client.query<{ group_key: string }>(
        server.prepared(lockGroups, [
          queueName,
          heads.map((row) => row.key),
          heads.map((row) => row.group_key),
          limit,
        ]),
      );
      if (locked.rows.length === 0) return [];
      const claimed = await client.query<ClaimedRow>(
        server.prepared(claimGroups, [
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
   * A document that SQL could not stamp: NaN, an escaped NUL, a lone surrogate or plain poison. What can be read is
   * stamped here, text for text; what cannot is set aside as failed and the rest of the batch goes on (D-3, D-64).
   */
  async #stampBySelf(key: string, token: number, workerId: string): Promise<string | null> {
    const now = Math.round(this.server.now());
    let document: string | null = null;
    await this.rows.change(key, (stored) => {
      if (stored.token !== token || stored.status !== "active") return { change: null, answer: null };
      const job = read(stored);
      if (!job) {
        this.logger.error(
          { job: key },
          "the stored document is not a SAQ job; set aside as failed, bytes untouched",
        );
        return { change: setAside, answer: null };
      }
      const change = encodeChange({
        status: "active",
        workerId,
        attempts: job.attempts + 1,
        started: now,
        touched: now,
      });
      document = editDocument(stored.document, change.patch, change.removed);
      return { change: { status: "active", ...change, scheduled: columnSecond(job) }, answer: null };
    });
    return document;
  }

  #cut(token: number, workerId: string): void {
    if (this.#closing.signal.aborted) return;
    this.#unsettled.set(token, { workerId, cutAt: performance.now() });
    this.#looking ??= this.#look().finally(() => {
      this.#looking = null;
    });
  }

  /**
   * One loop for all of them, without a deadline: it ends when the database has answered late enough, or with `close`;
   * then the worker ends too, and sweepers take over what it owned.
   */
  async #look(): Promise<void> {
    for (let failures = 0; this.#unsettled.size > 0 && !this.#closing.signal.aborted; ) {
      const lookedAt = performance.now();
      try {
        const open = await this.#giveBack([...this.#unsettled.keys()]);
        for (const [token, { cutAt }] of this.#unsettled)
          if (lookedAt - cutAt >= lastLookMs && !open.has(token)) this.#unsettled.delete(token);
        failures = 0;
      } catch (error) {
        failures++;
        this.logger.debug({ err: error }, "could not look for jobs of a claim that was cut off yet");
      }
      const wait = failures > 0 ? backoffMs(failures) : betweenLooksMs;
      if (this.#unsettled.size > 0) await sleep(wait, this.#closing.signal);
    }
  }

  /** Answers the tokens of jobs that could not be given back at this look. */
  async #giveBack(tokens: readonly number[]): Promise<Set<number>> {
    const open = new Set<number>();
    let count = 0;
    for (let after: string | undefined = ""; after !== undefined; ) {
      const rows: { key: string; token: number }[] = await this.server.query(this.server.statements.ownedBy, [
        this.queueName,
        tokens,
        after,
      ]);
      for (const { key, token } of rows) {
        try {
          await this.#giveBackOne(key, token, this.#unsettled.get(token)?.workerId ?? "");
          count++;
        } catch (error) {
          if (isConnectionError(error)) throw error;
          // Held by somebody's transaction, say; the others do not wait for it, and the next look meets it again.
          open.add(token);
          this.logger.debug({ err: error, job: key }, "could not give back a job of a cut-off claim yet");
        }
      }
      after = rows.at(-1)?.key;
    }
    if (count > 0) this.logger.warn({ jobs: count }, "gave back jobs whose claim was cut off");
    return open;
  }

  #giveBackOne(key: string, token: number, workerId: string): Promise<null> {
    return this.rows.changeNow(key, (row, clock) => {
      if (row.token !== token || isTakenOver(row, { workerId })) return { change: null, answer: null };
      // Aborted before anyone ran it: nobody but us can end it.
      if (row.status === "aborting") return { change: loseJob(row, clock, 0, 0), answer: null };
      if (row.status !== "active") return { change: null, answer: null };
      const job = read(row);
      if (!job) return { change: setAside, answer: null };
      const scheduled = columnSecond(job) || Math.floor(clock / 1_000);
      const change = encodeChange({
        status: "queued",
        attempts: Math.max(job.attempts - 1, 0),
        started: 0,
        workerId: null,
      });
      return { change: { status: "queued", ...change, scheduled }, answer: null };
    });
  }
}
