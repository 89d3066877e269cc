/** Claims jobs, renews claims, and sets unreadable documents aside. */
import type { ClaimRequest, ClaimResult } from "../broker.js";
import type { Claim, ClaimedJob } from "../core/claim.js";
import { columnSecond, isTerminal } from "../core/job.js";
import { isTakenOver, read } from "../core/stored-job.js";
import { unreadableChange } from "../core/transitions.js";
import { editDocument, encodeChange } from "../core/wire.js";
import { describe, type Logger } from "../logger.js";
import type { RedisConnection } from "./connection.js";
import type { JobStore } from "./jobs.js";
import type { QueueKeys } from "./keys.js";
import { dropScript, startScript, takeScript } from "./lua/claim.js";
import { newReceipt, newToken, receiptOf, suffixOf } from "./receipt.js";

/** Maximum number of jobs of one claim: while a script runs, the server does nothing else. */
const maxPerClaim = 1_000;

export class Claimer {
  readonly #inFlight = new Set<string>();
  /** Called after each claim with whether more jobs may wait. */
  onClaim: (isEmpty: boolean) => void = () => {};

  constructor(
    private readonly connection: RedisConnection,
    private readonly keys: QueueKeys,
    private readonly jobs: JobStore,
    private readonly logger: Logger,
  ) {}

  /** True while the claim with this token has not returned its jobs to the caller. */
  isInFlight(token: string): boolean {
    return this.#inFlight.has(token);
  }

  async claim({ workerId, limit, mayWait = false }: ClaimRequest): Promise<ClaimResult> {
    const token = newToken(workerId, mayWait);
    this.#inFlight.add(token);
    try {
      return await this.#claim(workerId, Math.min(limit, maxPerClaim), token);
    } finally {
      // The caller holds the jobs only after this turn. Until then, they must not count as unheld.
      setImmediate(() => this.#inFlight.delete(token));
    }
  }

  async #claim(workerId: string, count: number, token: string): Promise<ClaimResult> {
    const { connection, keys } = this;
    const ids = (await connection.run(
      takeScript,
      [keys.incomplete, keys.queued, keys.active, keys.claims],
      [String(count), token],
      // If the response is lost, the ids stay in `active` under a token that nobody holds; `reconcile` finds them.
      { timeoutMs: 0, isRepeatable: false },
    )) as string[];
    this.onClaim(ids.length < count);
    if (ids.length === 0) return { jobs: [], more: false };
    const [started = "0", ...results] = (await connection.run(
      startScript,
      [keys.active, keys.claims, keys.incomplete, ...ids],
      [token, JSON.stringify(workerId), String(this.jobs.maxDocumentBytes)],
      { timeoutMs: 0, isRepeatable: false },
    )) as [string, ...(string | number)[]];
    const suffix = suffixOf(workerId, started);
    const receipt = newReceipt({ token, workerId, suffix });
    const due = Math.floor(Number(started) / 1_000);
    const claimed = new Map<string, ClaimedJob>();
    const others: string[] = [];
    for (const [index, id] of ids.entries()) {
      const isMarked = results[2 * index] === 1;
      const document = String(results[2 * index + 1]);
      const key = keys.jobKey(id);
      if (isMarked) claimed.set(key, { key, receipt, due, document, firstStart: suffix.started });
      else if (document !== "") others.push(key);
    }
    if (others.length > 0) await this.#startOthers(others, token, workerId, claimed);
    return {
      jobs: ids.flatMap((id) => claimed.get(keys.jobKey(id)) ?? []),
      more: ids.length === count || claimed.size < ids.length,
    };
  }

  /**
   * Starts jobs whose document the script could not change: retried jobs, and documents with another form. Drops ids
   * whose job does not wait: an id that was in the queue twice, or a job that was ended by hand.
   */
  async #startOthers(
    jobKeys: readonly string[],
    token: string,
    workerId: string,
    claimed: Map<string, ClaimedJob>,
  ): Promise<void> {
    const dropped: string[] = [];
    const unreadable: string[] = [];
    const started = await this.jobs.changeMany<ClaimedJob | "drop" | "left" | "unreadable">(
      jobKeys,
      (job, clock) => {
        const fields = read(job);
        if (!fields) return { change: { ...unreadableChange, isTaken: true }, answer: "unreadable" };
        if (job.status !== "queued") {
          // This claim has marked it, but the response was lost, and others have changed it since. `reconcile` finds it.
          const isMarked = job.token === token && fields.workerId === workerId && !isTerminal(job.status);
          return { change: null, answer: isMarked ? "left" : "drop" };
        }
        const now = Math.round(clock);
        const { patch, removed } = encodeChange({
          status: "active",
          attempts: fields.attempts + 1,
          started: now,
          touched: now,
          workerId,
        });
        return {
          change: { status: "active", patch, removed, token },
          answer: {
            key: job.key,
            receipt: newReceipt({ token, workerId, suffix: null }),
            due: columnSecond(fields) || Math.floor(clock / 1_000),
            document: editDocument(job.document, patch, removed),
            firstStart: null,
          },
        };
      },
    );
    for (const key of jobKeys) {
      const answer = started.get(key);
      if (answer === undefined || answer === "drop") dropped.push(key);
      else if (answer === "unreadable") unreadable.push(key);
      else if (answer !== "left") claimed.set(key, answer);
    }
    if (dropped.length > 0) {
      const ids = dropped.map((key) => this.keys.id(key));
      const { active, claims } = this.keys;
      // Not sent again if the response is lost: it would remove the id of another worker's run.
      const once = { isRepeatable: false };
      await this.connection
        .run(dropScript, [active, claims], [token, ...ids], once)
        .catch((error: unknown) => {
          this.logger.debug(
            describe(error),
            "could not drop ids of jobs that do not wait; a sweep drops them",
          );
        });
    }
    this.#logUnreadable(unreadable);
  }

  /** @see Broker.setAside */
  async setAside(claims: readonly Claim[]): Promise<void> {
    const tokenOf = new Map(claims.map((claim) => [claim.key, receiptOf(claim).token]));
    const answers = await this.jobs.changeMany([...tokenOf.keys()], (job) => {
      const isOurs = job.token === tokenOf.get(job.key);
      return { change: isOurs ? { ...unreadableChange, isTaken: true } : null, answer: isOurs };
    });
    this.#logUnreadable([...answers].flatMap(([key, isOurs]) => (isOurs ? [key] : [])));
  }

  #logUnreadable(jobKeys: readonly string[]): void {
    if (jobKeys.length === 0) return;
    this.logger.error(
      { jobs: jobKeys.slice(0, 20), count: jobKeys.length },
      "stored documents are not SAQ jobs; they were set aside as failed, and their bytes were not changed",
    );
  }

  /** @see Broker.renew */
  async renew(claims: readonly ClaimedJob[]): Promise<ClaimedJob[]> {
    const claimOf = new Map(claims.map((claim) => [claim.key, claim]));
    const renewed = await this.jobs.changeMany<ClaimedJob | null>([...claimOf.keys()], (job, clock) => {
      const claim = claimOf.get(job.key);
      const owned = claim && receiptOf(claim);
      const isOurs =
        owned && job.token === owned.token && job.status === "active" && !isTakenOver(job, owned);
      if (!isOurs) return { change: null, answer: null };
      const started = Math.max(Math.round(clock), read(job)?.started ?? 0);
      const { patch, removed } = encodeChange({ started, touched: started });
      return {
        change: { status: "active", patch, removed },
        answer: {
          ...claim,
          receipt: newReceipt({ ...owned, suffix: null }),
          document: editDocument(job.document, patch, removed),
          firstStart: null,
        },
      };
    });
    return claims.flatMap(({ key }) => renewed.get(key) ?? []);
  }
}
