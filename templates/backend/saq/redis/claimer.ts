/** Claims jobs, renews claims, and sets unreadable documents aside. */
import type { ClaimRequest, ClaimResult } from "../broker.js";
import { maxReadBytes } from "../core/byte-size.js";
import type { Claim, ClaimedJob } from "../core/claim.js";
import { columnSecond, isTerminal } from "../core/job.js";
import { isTakenOver, read } from "../core/stored-job.js";
import { unreadableChange } from "../core/transitions.js";
import { editDocument, encodeChange } from "../core/wire.js";
import { describe, type Logger } from "../logger.js";
import type { RedisConnection } from "./connection.js";
import { forgetJobs, type JobStore, mayBeDamaged } from "./jobs.js";
import type { QueueKeys } from "./keys.js";
import {
  dropScript,
  startScript,
  startUnpausedScript,
  takeExpectedScript,
  takeParkedScript,
  takeScript,
} from "./lua/claim.js";
import type { RedisPauses } from "./pauses.js";
import { newReceipt, newToken, receiptOf, suffixOf } from "./receipt.js";

/** Maximum number of jobs of one claim: while a script runs, the server does nothing else. */
const maxPerClaim = 1_000;
/** If the response is lost, the ids stay in `active` under a token that nobody holds; `reconcile` finds them. */
const callOptions = { timeoutMs: 0, isRepeatable: false };

/** What `startScript` and `startUnpausedScript` say about a job. */
const marks = { started: 1, parked: 2, returned: 3 } as const;

/** The time, and for each id two values. See `startScript`. */
type StartReply = [started: string, ...results: (string | number)[]];

export class Claimer {
  readonly #inFlight = new Set<string>();
  /** Id of the job that has woken a worker since the last claim: the next claim probably takes this job only. */
  #expectedId: string | null = null;
  /** True if most jobs of the last claim were of paused tasks: the next one looks at as many jobs as it may. */
  #skips = false;
  /** Called after each claim with whether more jobs may wait. */
  onClaim: (isEmpty: boolean) => void = () => {};

  constructor(
    private readonly connection: RedisConnection,
    private readonly keys: QueueKeys,
    private readonly jobs: JobStore,
    private readonly pauses: RedisPauses,
    private readonly logger: Logger,
  ) {}

  /** True while the claim with this token has not returned its jobs to the caller. */
  isInFlight(token: string): boolean {
    return this.#inFlight.has(token);
  }

  /** Tells which job the next claim will probably take. */
  expect(id: string): void {
    this.#expectedId = id;
  }

  async claim({ workerId, limit, mayWait = false, excluded }: ClaimRequest): Promise<ClaimResult> {
    const token = newToken(workerId, mayWait);
    this.#inFlight.add(token);
    const tasks = excluded?.tasks ?? [];
    const count = Math.min(limit, maxPerClaim);
    try {
      // Jobs that were put aside while their task was paused are in front of all others.
      const released = this.pauses.releasedTask(tasks);
      if (released !== null) return await this.#claimParked(workerId, count, token, released);
      if (tasks.length > 0) return await this.#claimUnpaused(workerId, count, token, tasks);
      return await this.#claim(workerId, count, token);
    } finally {
      // The caller holds the jobs only after this turn. Until then, they must not count as unheld.
      setImmediate(() => this.#inFlight.delete(token));
    }
  }

  async #claim(workerId: string, count: number, token: string): Promise<ClaimResult> {
    const { ids, startReply } = await this.#take(workerId, count, token);
    this.onClaim(ids.length < count);
    if (ids.length === 0) return { jobs: [], more: false };
    const reply = startReply ?? (await this.#start(ids, workerId, token));
    const jobs = await this.#jobsOf(ids, reply, workerId, token);
    return { jobs, more: ids.length === count || jobs.length < ids.length };
  }

  /** Claims jobs of a task that were put aside while it was paused. */
  async #claimParked(workerId: string, count: number, token: string, task: string): Promise<ClaimResult> {
    const { active, claims, parkedTasks } = this.keys;
    const parked = [active, claims, parkedTasks, this.keys.parked(task)];
    const ids = (await this.connection.run(
      takeParkedScript,
      parked,
      [token, String(count), task],
      callOptions,
    )) as string[];
    if (ids.length < count) this.pauses.onDrained(task);
    if (ids.length === 0) return { jobs: [], more: true };
    const jobs = await this.#jobsOf(ids, await this.#start(ids, workerId, token), workerId, token);
    return { jobs, more: true };
  }

  /** Claims jobs of tasks that are not paused, and puts aside the jobs of paused tasks that it meets. */
  async #claimUnpaused(
    workerId: string,
    count: number,
    token: string,
    tasks: readonly string[],
  ): Promise<ClaimResult> {
    const looked = this.#skips ? maxPerClaim : count;
    // Such a claim needs two scripts in any case.
    this.#expectedId = null;
    const { ids } = await this.#take(workerId, looked, token);
    this.onClaim(ids.length < looked);
    if (ids.length === 0) return { jobs: [], more: false };
    const { parkedTasks } = this.keys;
    const reply = (await this.connection.run(
      startUnpausedScript,
      [...this.#claimKeys, parkedTasks, ...tasks.map((task) => this.keys.parked(task)), ...ids],
      [token, String(count), ...this.#startArgs(workerId), ...tasks],
      callOptions,
    )) as StartReply;
    const parked = ids.filter((_, index) => reply[1 + 2 * index] === marks.parked).length;
    this.#skips = parked > ids.length / 2;
    if (parked > 0) this.pauses.onParked(tasks);
    const jobs = await this.#jobsOf(ids, reply, workerId, token);
    return { jobs, more: ids.length === looked || jobs.length < ids.length };
  }

  /** Returns the jobs with these ids as the claim holds them. `reply`: what the script that started them returned. */
  async #jobsOf(
    ids: readonly string[],
    reply: StartReply,
    workerId: string,
    token: string,
  ): Promise<ClaimedJob[]> {
    const { keys } = this;
    const [started = "0", ...results] = reply;
    const suffix = suffixOf(workerId, started);
    const receipt = newReceipt({ token, workerId, suffix });
    const due = Math.floor(Number(started) / 1_000);
    const claimed = new Map<string, ClaimedJob>();
    const others: string[] = [];
    // If the documents are too many bytes, the last ids went back into the queue.
    const takenIds = ids.slice(0, results.length / 2);
    for (const [index, id] of takenIds.entries()) {
      const mark = results[2 * index];
      const document = String(results[2 * index + 1]);
      const key = keys.jobKey(id);
      if (mark === marks.started)
        claimed.set(key, { key, receipt, due, document, firstStart: suffix.started });
      else if (mark === 0 && document !== "") others.push(key);
    }
    if (others.length > 0) await this.#startOthers(others, token, workerId, claimed);
    await this.#removeDamaged(claimed);
    return ids.flatMap((id) => claimed.get(keys.jobKey(id)) ?? []);
  }

  /** Takes ids from the queue. `startReply`: the reply of `startScript` for them, if it is known already. */
  async #take(
    workerId: string,
    count: number,
    token: string,
  ): Promise<{ ids: readonly string[]; startReply: StartReply | null }> {
    const expectedId = this.#expectedId;
    this.#expectedId = null;
    const script = expectedId === null ? takeScript : takeExpectedScript;
    const args = [token, String(count)];
    if (expectedId !== null) args.push(...this.#startArgs(workerId));
    const reply = (await this.connection.run(
      script,
      expectedId === null ? this.#claimKeys : [...this.#claimKeys, expectedId],
      args,
      callOptions,
    )) as string[] | [null, ...StartReply];
    const [first, ...rest] = reply;
    if (expectedId !== null && first === null) return { ids: [expectedId], startReply: rest as StartReply };
    return { ids: reply as string[], startReply: null };
  }

  async #start(ids: readonly string[], workerId: string, token: string): Promise<StartReply> {
    const args = [token, "", ...this.#startArgs(workerId)];
    const reply = await this.connection.run(startScript, [...this.#claimKeys, ...ids], args, callOptions);
    return reply as StartReply;
  }

  get #claimKeys(): string[] {
    const { incomplete, queued, active, claims } = this.keys;
    return [incomplete, queued, active, claims];
  }

  #startArgs(workerId: string): string[] {
    return [JSON.stringify(workerId), String(this.jobs.maxDocumentBytes), String(maxReadBytes)];
  }

  /** Sets the jobs aside whose documents contain bytes that are not UTF-8. */
  async #removeDamaged(claimed: Map<string, ClaimedJob>): Promise<void> {
    const suspects = [...claimed.values()].filter(({ document }) => mayBeDamaged(document));
    if (suspects.length === 0) return;
    const stored = await this.jobs.fetch(suspects.map(({ key }) => key));
    const damaged = suspects.filter((_, index) => stored[index]?.document === "");
    for (const { key } of damaged) claimed.delete(key);
    if (damaged.length > 0) await this.setAside(damaged);
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
    /** Hashes of the documents of jobs that are over; "" for a job without a document. */
    const over = new Map<string, string>();
    type Start = ClaimedJob | { over: string } | "drop" | "left" | "unreadable";
    const started = await this.jobs.changeMany<Start>(jobKeys, (job, clock) => {
      const fields = read(job);
      if (!fields) return { change: { ...unreadableChange, isTaken: true }, answer: "unreadable" };
      if (job.status !== "queued") {
        if (isTerminal(job.status)) return { change: null, answer: { over: job.hash } };
        // This claim has marked it, the response was lost, and others have changed it since: `reconcile` finds it.
        const isMarked = job.token === token && fields.workerId === workerId;
        return { change: null, answer: isMarked ? "left" : "drop" };
      }
      // The id was in the queue although the job is not due yet.
      if (job.score !== null && job.score > 0) return { change: null, answer: "drop" };
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
    });
    for (const key of jobKeys) {
      const answer = started.get(key);
      if (answer === "drop") dropped.push(key);
      else if (answer === "unreadable") unreadable.push(key);
      else if (answer === undefined) over.set(key, "");
      else if (answer !== "left" && "over" in answer) over.set(key, answer.over);
      else if (answer !== "left") claimed.set(key, answer);
    }
    await this.#drop(dropped, over, token).catch((error: unknown) => {
      this.logger.debug(describe(error), "could not drop ids of jobs that do not wait; a sweep drops them");
    });
    this.#logUnreadable(unreadable);
  }

  /** Drops the ids of jobs that do not wait. `over`: of jobs that are over, with the hashes of their documents. */
  async #drop(jobKeys: readonly string[], over: ReadonlyMap<string, string>, token: string): Promise<void> {
    const { connection, keys } = this;
    // Not sent again if the response is lost: it would remove the id of another worker's run.
    const once = { isRepeatable: false };
    const ids = jobKeys.map((key) => keys.id(key));
    if (ids.length > 0) await connection.run(dropScript, [keys.active, keys.claims], [token, ...ids], once);
    if (over.size > 0) await forgetJobs(connection, keys, over);
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
