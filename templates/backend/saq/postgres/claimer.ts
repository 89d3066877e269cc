/** Takes jobs: an ungrouped batch in one statement, grouped ones one per free group under the groups' locks. */
import { randomInt } from "node:crypto";
import type { ClaimedJob, ClaimRequest } from "../broker.js";
import { type JobFields, latestSecond } from "../job.js";
import type { Logger } from "../logger.js";
import { read, setAside } from "../transitions.js";
import { editDocument, encodeChange } from "../wire.js";
import type { RowStore } from "./rows.js";
import type { PostgresServer } from "./server.js";

interface ClaimedRow {
  key: string;
  /** bigint, as text. */
  nth: string;
  place: number;
  /** bigint, as text. */
  due: string;
  document: string | null;
}

/** The document's due time as its column can hold it. */
const columnSecond = (job: JobFields) => Math.min(Math.max(Math.floor(job.scheduled), 0), latestSecond);

/** A fresh token for every claim, over all of int4: two of one value meet once in four thousand million claims. */
const newToken = () => randomInt(-(2 ** 31), 2 ** 31);

/** After a claim that was cut off: waits between looks for what it took after all, ms. */
const laterLooksMs = [1_000, 4_000, 25_000];

export class Claimer {
  /** Where the walk over the groups stands; it goes round. */
  #cursor = "";

  constructor(
    private readonly server: PostgresServer,
    private readonly rows: RowStore,
    private readonly queueName: string,
    private readonly logger: Logger,
  ) {}

  async claim(request: ClaimRequest): Promise<ClaimedJob[]> {
    const token = newToken();
    try {
      const rows = request.grouped
        ? await this.#claimGrouped(request, token)
        : await this.#claimUngrouped(request, token);
      rows.sort((a, b) => Number(a.nth) - Number(b.nth));
      const jobs: ClaimedJob[] = [];
      for (const row of rows) {
        const document = row.document ?? (await this.#stampBySelf(row.key, token, request.workerId));
        if (document !== null)
          jobs.push({ key: row.key, token, place: row.place, due: Number(row.due), document });
      }
      return jobs;
    } catch (error) {
      // The statement may have been carried out although its answer never came. Nobody else knows these jobs: what
      // carries this token and is still active is given back as soon as the database answers again.
      void this.#giveBack(token, request.workerId);
      throw error;
    }
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
    const { groupHeads, lockGroups, claimGroups } = this.server.statements;
    return this.server.transaction(async (client) => {
      const found = await client.query<{ reached: string; key: string | null; group_key: string | null }>(
        groupHeads.text,
        [this.queueName, lowest, highest, this.#cursor, limit * 4],
      );
      this.#cursor = found.rows[0]?.reached ?? "";
      const heads = found.rows.filter((row) => row.key !== null);
      if (heads.length === 0) return [];
      const locked = await client.query<{ key: string }>(lockGroups.text, [
        this.queueName,
        heads.map((row) => row.key),
        heads.map((row) => row.group_key),
      ]);
      const keys = locked.rows.slice(0, limit).map((row) => row.key);
      if (keys.length === 0) return [];
      const claimed = await client.query<ClaimedRow>(claimGroups.text, [
        this.queueName,
        keys,
        lowest,
        highest,
        token,
        JSON.stringify({ status: "active", worker_id: workerId }),
      ]);
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

  /**
   * Looks several times: a server that has lost its client carries the statement to its end first, and a look during
   * that finds nothing yet.
   */
  async #giveBack(token: number, workerId: string, [nextLook, ...looks] = laterLooksMs): Promise<void> {
    if (nextLook !== undefined)
      setTimeout(() => void this.#giveBack(token, workerId, looks), nextLook).unref();
    try {
      for (let after = ""; ; ) {
        const { rows } = await this.server.queryAgain<{ key: string; token: number }>(
          this.server.statements.ownedBy,
          [this.queueName, token, after],
          60_000,
        );
        const last = rows.at(-1);
        if (!last) return;
        for (const { key } of rows) await this.#giveBackOne(key, token);
        this.logger.warn({ jobs: rows.length, workerId }, "gave back jobs whose claim was cut off");
        after = last.key;
      }
    } catch (error) {
      this.logger.debug(
        { err: error },
        "could not look for jobs of a claim that was cut off; the sweeper will",
      );
    }
  }

  #giveBackOne(key: string, token: number): Promise<null> {
    return this.rows.change(key, (row) => {
      if (row.token !== token || row.status !== "active") return { change: null, answer: null };
      const job = read(row);
      if (!job) return { change: setAside, answer: null };
      const scheduled = columnSecond(job) || Math.floor(this.server.now() / 1000);
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
