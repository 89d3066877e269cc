/**
 * Takes over the jobs of dead workers, ends stuck jobs, and puts jobs back that a worker holds only in storage. Each
 * change is decided by the job's present document and claim, so a second sweeper does no harm.
 */
import type { Reconciliation, SweepLimits } from "../broker.js";
import type { Claim } from "../core/claim.js";
import { isTerminal } from "../core/job.js";
import { isTakenOver, read } from "../core/stored-job.js";
import { loseJob, requeueUnstarted, sweepJob, unreadableChange } from "../core/transitions.js";
import type { Logger } from "../logger.js";
import type { RedisConnection } from "./connection.js";
import { type Decide, forgetJobs, type JobStore, type ReadJob, requeueTaken } from "./jobs.js";
import type { QueueKeys } from "./keys.js";
import { forgetExpiredScript } from "./lua/workers.js";
import { isClaimedAhead, receiptOf, workerOf } from "./receipt.js";
import type { Lease, Workers } from "./workers.js";

/** How long one process may sweep stuck jobs before another one does, ms. */
const sweepLockMs = 5_000;
/** A claimed job that is not marked as active for this long was left behind, ms: marking takes some ms. */
const unmarkedMs = 5_000;
const pageSize = 500;
/**
 * How long a lease must have been seen near its end before its worker counts as dead, ms. After an outage all leases
 * have ended, and the workers that live renew theirs within this time: their pauses between two tries are up to 5 s
 * long.
 */
const renewalMs = 8_000;
/** Leases are watched from this time before their end, s, so that the wait of `renewalMs` is over when a lease ends. */
const watchSeconds = renewalMs / 1_000 + 1;

export class Sweeper {
  /** Ids in the list of running jobs that are not marked as active; when they were first seen, by performance.now(). */
  #unmarkedSince = new Map<string, number>();
  /** Workers whose lease is near its end; when this was first seen, by performance.now(). */
  #endingSince = new Map<string, number>();

  constructor(
    private readonly connection: RedisConnection,
    private readonly keys: QueueKeys,
    private readonly jobs: JobStore,
    private readonly workers: Workers,
    private readonly logger: Logger,
  ) {}

  /** @see Broker.sweepLost */
  async sweepLost(limits: SweepLimits): Promise<string[]> {
    const dead = await this.workers.dead(this.#certain(await this.workers.ending(watchSeconds)));
    if (dead.length === 0 || (await this.connection.isCutOff())) return [];
    const isDead = new Set(dead.map(({ workerId }) => workerId));
    const keys = await this.#takeOver(await this.#claimsOf((workerId) => isDead.has(workerId)), limits);
    await this.workers.forget(dead);
    return keys;
  }

  /**
   * Returns the leases that this process has seen near their end for a while, with the server reachable all the time.
   */
  #certain(leases: readonly Lease[]): Lease[] {
    const now = performance.now();
    const { availableSince } = this.connection;
    const seen = new Map<string, number>();
    for (const { workerId } of leases) {
      const since = this.#endingSince.get(workerId);
      seen.set(workerId, since !== undefined && since >= availableSince ? since : now);
    }
    this.#endingSince = seen;
    return leases.filter(({ workerId }) => now - (seen.get(workerId) ?? now) >= renewalMs);
  }

  /** @see Broker.sweepStuck */
  async sweepStuck(limits: SweepLimits): Promise<string[]> {
    const { connection, keys } = this;
    const lock = ["SET", keys.sweepLock, "1", "NX", "PX", String(sweepLockMs)];
    if ((await connection.command(lock)) === null) return [];
    for (const status of ["complete", "failed", "aborted"] as const)
      await this.#forgetExpired(keys.finished(status));
    // In this order: a worker that starts meanwhile has a lease before its first claim.
    const orphaned = await this.#claimsOf((workerId) => workerId !== "");
    const { known, disconnected } = await this.workers.all();
    for (const [key, token] of orphaned) if (known.has(workerOf(token))) orphaned.delete(key);
    if (orphaned.size > 0 && (await connection.isCutOff())) orphaned.clear();
    const swept = await this.#takeOver(orphaned, limits);
    const active = (await connection.command(["LRANGE", keys.active, "0", "-1"])) as string[];
    const claimed = (await connection.command(["HKEYS", keys.claims])) as string[];
    const ids = [...new Set([...active, ...claimed])];
    const isUnmarked = new Map<string, number>();
    for (let start = 0; start < ids.length; start += pageSize)
      swept.push(
        ...(await this.#sweepPage(ids.slice(start, start + pageSize), limits, { isUnmarked, disconnected })),
      );
    this.#unmarkedSince = isUnmarked;
    return swept;
  }

  /** Removes the ids of expired jobs from a set, page by page: while a command runs, the server does nothing else. */
  async #forgetExpired(set: string): Promise<void> {
    const now = String(Math.floor(this.connection.clock.now()));
    for (let removed = pageSize; removed === pageSize; ) {
      const page = ["ZRANGEBYSCORE", set, "0", now, "LIMIT", "0", String(pageSize)];
      const ids = (await this.connection.command(page)) as string[];
      removed = ids.length;
      // An id that has got a later score meanwhile belongs to a new job, which has finished since.
      if (removed > 0) await this.connection.run(forgetExpiredScript, [set], [now, ...ids]);
    }
  }

  async #sweepPage(
    ids: readonly string[],
    { graceSeconds, failedTtl }: SweepLimits,
    { isUnmarked, disconnected }: { isUnmarked: Map<string, number>; disconnected: ReadonlySet<string> },
  ): Promise<string[]> {
    const { keys, connection } = this;
    const jobKeys = ids.map((id) => keys.jobKey(id));
    const finished = new Map<string, string>();
    const decide: Decide<"swept" | "kept"> = (job, clock) => {
      if (isFinished(job, finished)) return { change: null, answer: "kept" };
      // A Python job whose document is too large for this process to read. Python's own sweeper ends it.
      if (job.unreadBytes !== undefined) return { change: null, answer: "kept" };
      if (!read(job)) return { change: { ...unreadableChange, isTaken: true }, answer: "swept" };
      if (job.status === "queued") {
        const id = keys.id(job.key);
        const since = this.#unmarkedSince.get(id) ?? performance.now();
        isUnmarked.set(id, since);
        if (performance.now() - since < unmarkedMs) return { change: null, answer: "kept" };
        return { change: requeueTaken(job, clock), answer: "swept" };
      }
      // If its worker has died, the job must run again, even if it has exceeded its limits meanwhile: see `sweepLost`.
      if (job.token !== "" && disconnected.has(workerOf(job.token))) return { change: null, answer: "kept" };
      const setForward = (since: number) => connection.clock.setForwardSince(since);
      const change = sweepJob(job, clock, graceSeconds, failedTtl, setForward, this.jobs.maxBytes);
      return { change, answer: change ? "swept" : "kept" };
    };
    const answers = await this.jobs.changeMany(jobKeys, decide);
    await this.#forget(jobKeys, answers, finished);
    return [...answers].flatMap(([jobKey, answer]) => (answer === "swept" ? [jobKey] : []));
  }

  /**
   * Removes the ids of jobs that are finished or gone from the lists of unfinished jobs. `finished`: the hashes of the
   * finished documents by key; a key of `jobKeys` that is in neither map has no document.
   */
  async #forget(
    jobKeys: Iterable<string>,
    answers: ReadonlyMap<string, unknown>,
    finished: ReadonlyMap<string, string>,
  ): Promise<void> {
    const over = [...jobKeys].filter((jobKey) => finished.has(jobKey) || !answers.has(jobKey));
    const hashes = new Map(over.map((jobKey) => [jobKey, finished.get(jobKey) ?? ""]));
    if (over.length > 0) await forgetJobs(this.connection, this.keys, hashes);
  }

  /** Returns the claims of the workers for which `isWanted` is true: job key and token. */
  async #claimsOf(isWanted: (workerId: string) => boolean): Promise<Map<string, string>> {
    const claims = new Map<string, string>();
    let cursor = "0";
    do {
      const [next, fields] = (await this.connection.command([
        "HSCAN",
        this.keys.claims,
        cursor,
        "COUNT",
        "500",
      ])) as [string, string[]];
      for (let index = 0; index < fields.length; index += 2) {
        const token = fields[index + 1] ?? "";
        if (isWanted(workerOf(token))) claims.set(this.keys.jobKey(fields[index] ?? ""), token);
      }
      cursor = next;
    } while (cursor !== "0");
    return claims;
  }

  /** Queues the jobs of these claims again, or fails those that were lost too often. Returns their keys. */
  async #takeOver(
    claims: ReadonlyMap<string, string>,
    { lostLimit, failedTtl }: Pick<SweepLimits, "lostLimit" | "failedTtl">,
    didRun: (job: ReadJob) => boolean = wasStarted,
  ): Promise<string[]> {
    if (claims.size === 0) return [];
    const finished = new Map<string, string>();
    const answers = await this.jobs.changeMany<boolean>([...claims.keys()], (job, clock) => {
      const token = claims.get(job.key);
      if (job.token !== token || isTakenOver(job, { workerId: workerOf(token) }))
        return { change: null, answer: false };
      if (isFinished(job, finished)) return { change: null, answer: false };
      if (job.status === "queued") return { change: requeueTaken(job, clock), answer: true };
      const change = loseJob(job, clock, lostLimit, failedTtl, didRun(job), this.jobs.maxBytes);
      return { change, answer: true };
    });
    await this.#forget(claims.keys(), answers, finished);
    return [...answers].flatMap(([jobKey, answer]) => (answer === true ? [jobKey] : []));
  }

  /** @see Broker.recordLost */
  async recordLost(
    claims: readonly Claim[],
    limits: Pick<SweepLimits, "lostLimit" | "failedTtl">,
  ): Promise<void> {
    const tokens = new Map(claims.map((claim) => [claim.key, receiptOf(claim).token]));
    await this.#takeOver(tokens, limits, () => true);
  }

  /** @see Broker.reconcile */
  async reconcile(
    { workerId, held, unrecorded, forgetUnrecorded, lostLimit, failedTtl }: Reconciliation,
    isInFlight: (token: string) => boolean,
  ): Promise<string[]> {
    const findUnheld = async () => {
      const claims = await this.#claimsOf((owner) => owner === workerId);
      for (const claim of unrecorded())
        if (claims.get(claim.key) !== receiptOf(claim).token) forgetUnrecorded(claim);
      for (const { key, receipt } of held())
        if (claims.get(key) === receiptOf({ receipt }).token) claims.delete(key);
      for (const [key, token] of claims) if (isInFlight(token)) claims.delete(key);
      return claims;
    };
    const first = await findUnheld();
    if (first.size === 0) return [];
    // One look is not enough: the job may have ended between the look and its response.
    const second = await findUnheld();
    for (const [key, token] of second) if (first.get(key) !== token) second.delete(key);
    if (second.size === 0) return [];
    const hasRun = new Map([...unrecorded()].map((claim) => [claim.key, receiptOf(claim).token]));
    const finished = new Map<string, string>();
    const answers = await this.jobs.changeMany<boolean>([...second.keys()], (job, clock) => {
      const token = second.get(job.key);
      if (job.token !== token || isTakenOver(job, { workerId })) return { change: null, answer: false };
      if (isFinished(job, finished)) return { change: null, answer: false };
      if (job.status === "queued") return { change: requeueTaken(job, clock), answer: true };
      const isLost = job.status === "aborting" || hasRun.get(job.key) === token;
      return {
        change: isLost
          ? loseJob(job, clock, lostLimit, failedTtl, true, this.jobs.maxBytes)
          : requeueUnstarted(job, clock),
        answer: true,
      };
    });
    await this.#forget(second.keys(), answers, finished);
    const keys = [...answers].flatMap(([jobKey, answer]) => (answer === true ? [jobKey] : []));
    if (keys.length > 0) {
      this.logger.warn(
        { jobs: keys.slice(0, 20), count: keys.length },
        "put jobs back into the queue that this worker had claimed but did not hold, or whose end was not recorded",
      );
    }
    return keys;
  }
}

/** True if a readable job is finished; then adds the hash of its document to `finished`. */
function isFinished(job: ReadJob, finished: Map<string, string>): boolean {
  if (!isTerminal(job.status) || read(job) === null) return false;
  finished.set(job.key, job.hash);
  return true;
}

/**
 * True if the job was started. A claim writes the same time as `started` and `touched`, and nothing is written when the
 * worker starts the job. A job that was claimed ahead then counts as not started.
 */
function wasStarted(job: ReadJob): boolean {
  const fields = read(job);
  if (!fields) return false;
  if (fields.touched !== fields.started) return true;
  return !("lost" in fields.meta) && !isClaimedAhead(job.token);
}
