/**
 * Claims jobs before the slots that will run them are free.
 *
 * One claim is in flight at a time. A wake-up during a claim causes one more claim after it. If a claim returns as many
 * jobs as it asked for, more jobs may be waiting. The next claim then starts when the buffer is half empty, so that
 * claiming overlaps with running and settling. If a claim returns fewer jobs, the fetcher waits for a notification or
 * for the next tick.
 *
 * The buffer holds at most as many jobs as run within 250 ms at the recently measured duration, and within a tenth of
 * the shortest timeout. It holds fewer jobs if payloads are large. No-op jobs are claimed in large numbers. If a job
 * takes a second, the buffer holds at most a quarter of `concurrency`, so that a worker does not hold jobs that another
 * worker could run. A new fetcher has not measured any job yet, so it claims only for the free slots.
 */

import type { Broker, ClaimRequest, ClaimResult } from "../broker.js";
import { backoffMs, doubled } from "../core/backoff.js";
import { bytesOf } from "../core/byte-size.js";
import type { ClaimedJob } from "../core/claim.js";
import type { PausedJobs } from "../core/pause.js";
import type { Logger } from "../logger.js";
import type { ProblemLog } from "../problem-log.js";
import { claimChannel } from "../telemetry/channels.js";
import type { QueueTelemetry } from "../telemetry/queue-telemetry.js";
import { PrefetchBuffer } from "./prefetch-buffer.js";

/** The buffer holds at most the jobs that run within this time. */
const horizonMs = 250;
/**
 * Maximum number of jobs in the buffer. Each claim first reads past the rows that previous claims took, so a few large
 * claims cost less than many small ones (1,000 -> 2,000: jobs drain 1.07 times as fast, 200,000 jobs 1.13 times).
 */
const maxBuffered = 2_000;
/** Maximum bytes of documents in the buffer: few jobs with large payloads, or many jobs with small ones. */
const maxBufferedBytes = 16 * 1024 * 1024;
/**
 * A claim asks for the sum of three numbers: the free slots, this share of the full buffer, and `growthFactor` times
 * the number of buffered jobs. If few jobs are buffered, a claim for the full buffer takes so long that slots stay
 * empty. A small claim returns soon, and the next claim is in flight while its jobs run. The factor is 3 because a
 * no-op job takes three times as long to run as to claim.
 */
const minBufferShare = 1 / 8;
const growthFactor = 3;
/**
 * A claim that takes longer limits the next claim to half as many jobs. A claim that takes less than half of this time
 * doubles the limit.
 */
const slowClaimMs = 2_000;
/**
 * While claims find only rows that hold no job, each claim asks for four times as many rows as the previous one. This
 * is the maximum factor.
 */
const maxUnreadableFactor = 64;
/** Maximum number of renewals of jobs whose claim returned too late. After that they are not started here. */
const maxRenewals = 3;
/** Claimed jobs that still wait after this time, ms, are given back, because jobs take longer than was measured. */
const staleMs = 1_000;
/**
 * Pause between two checks for jobs with a group, ms. A check costs the server 0.06 ms, so at this rate it adds little
 * to the cost of a slow stream of jobs without a group. The pause doubles after each check that finds jobs with a
 * group, none of which can be claimed: their groups are busy, or they are not due. The maximum is the interval of the
 * tick.
 */
const groupCheckPauseMs = { first: 20, longest: 1_000 };
/**
 * While tasks are paused, a claim of grouped jobs may read many jobs that it must leave, and return none. If it took
 * longer than `slowMs`, the next one waits for `pauseFactor` times as long, so that jobs of other tasks are claimed
 * meanwhile.
 */
const excludingGroups = { slowMs: 100, pauseFactor: 20 };

/** The order in which one round claims: true = jobs with a group, false = jobs without one. */
const ungroupedOnly: readonly boolean[] = [false];
const groupedFirst: readonly boolean[] = [true, false];
const ungroupedFirst: readonly boolean[] = [false, true];

/** What a fetcher needs from its worker. */
export interface FetchHost {
  /** Returns the number of slots that could run a job now; -Infinity while no job may start. */
  freeSlots(): number;
  /** True while the whole queue is paused: nothing is claimed. */
  readonly isPaused: boolean;
  /** The tasks and groups whose jobs must not be claimed; null if there are none. */
  readonly excluded: PausedJobs | null;
  /** Returns the maximum number of jobs that may be claimed now. */
  maxToClaim(): number;
  /** Called when jobs have arrived in the buffer. */
  jobsBuffered(): void;
  /** Called after a claim, with the number of its jobs. Not called if it found only rows that hold no job. */
  jobsClaimed(count: number): void;
  /** Returns claimed jobs to the queue that have waited in the buffer for too long. */
  giveBack(jobs: readonly ClaimedJob[]): void;
}

export interface FetcherOptions {
  broker: Broker;
  queueName: string;
  workerId: string;
  concurrency: number;
  priorities: readonly [number, number];
  prefetch: boolean;
  /** If a claim takes longer than this, ms, other workers may have taken over its jobs. */
  maxClaimMs: number;
  logger: Logger;
  problems: ProblemLog;
  telemetry: Pick<QueueTelemetry, "current">;
  /** True if a claimed job may have to wait for a thread although a slot is free. */
  mayWaitForThread: boolean;
}

export class Fetcher {
  readonly #host: FetchHost;
  readonly #options: FetcherOptions;
  readonly #buffer = new PrefetchBuffer();
  #claimInFlight: Promise<void> | null = null;
  #claimAgain = false;
  /** True if the last claim found no more jobs, and no call has woken the fetcher since. */
  #foundNoMore = false;
  #hasGroupedJobs = false;
  #claimGroupedFirst = true;
  /** Time of the last check for grouped jobs, by performance.now(). */
  #groupsCheckedAt = 0;
  /** Number of checks in a row that found jobs with a group, none of which could be claimed. */
  #unsuccessfulGroupChecks = 0;
  #groupCheckTimer: NodeJS.Timeout | null = null;
  /** While tasks are paused, grouped jobs are not claimed before this time, by performance.now(). */
  #groupsNotBefore = 0;
  #isStopped = false;
  /** Number of claims in a row that failed. */
  #failures = 0;
  #lastError: { error: unknown; at: Date } | null = null;
  /** The timer of the next claim after a failure. */
  #retryTimer: NodeJS.Timeout | null = null;
  /** Average duration of about the last hundred jobs, ms; null before the first job. */
  #averageMs: number | null = null;
  /** Number of jobs whose duration was measured. */
  #measuredJobs = 0;
  /** Average size of the documents in the last claim that returned any, bytes. */
  #averageBytes = 1;
  /** Maximum number of jobs per claim, adapted to how long claims take. */
  #maxPerClaim = Number.POSITIVE_INFINITY;
  /** Factor by which a claim asks for more rows, because the rows of the previous claims held no job. */
  #unreadableFactor = 1;
  /** Jobs whose claim returned too late to start them. Storage is being asked whether this worker still owns them. */
  #jobsInRenewal: readonly ClaimedJob[] = [];
  #shortestTimeoutMs = Number.POSITIVE_INFINITY;

  constructor(host: FetchHost, options: FetcherOptions) {
    this.#host = host;
    this.#options = options;
  }

  /** The error of the last claim that failed. It stays when claims succeed again. */
  get lastError(): { error: unknown; at: Date } | null {
    return this.#lastError;
  }

  /** True while claims fail. */
  get isFailing(): boolean {
    return this.#failures > 0;
  }

  /** True if the last claim found no more jobs, and no claim is in flight. */
  get isIdle(): boolean {
    return this.#foundNoMore && !this.#claimInFlight;
  }

  /** Number of jobs in the buffer. */
  get buffered(): number {
    return this.#buffer.size;
  }

  /** The jobs that are claimed and not started yet. */
  *claims(): Generator<ClaimedJob> {
    yield* this.#buffer.claims();
    yield* this.#jobsInRenewal;
  }

  /** Resolves when no claim is in flight that was sent before this call. */
  async claimEnded(): Promise<void> {
    await this.#claimInFlight;
  }

  /** Removes jobs from the buffer, and returns them in their order. */
  take(isWanted: (job: ClaimedJob) => boolean): ClaimedJob[] {
    return this.#buffer.take(isWanted);
  }

  /** Removes the next claimed job from the buffer and returns it. */
  next(): ClaimedJob | undefined {
    // After a pause of this process, other workers may run the buffered jobs. Only storage knows who owns them, so jobs
    // that have waited too long are given back.
    this.#giveBackStale();
    return this.#buffer.next();
  }

  /** Notifies the fetcher that a job may be claimable now. */
  wake(): void {
    // The job may have a group. The planned check for grouped jobs would find it too late.
    if (this.#unsuccessfulGroupChecks > 0 && this.#groupCheckTimer) {
      clearTimeout(this.#groupCheckTimer);
      this.#groupCheckTimer = null;
    }
    this.#unsuccessfulGroupChecks = 0;
    this.#resume();
  }

  #resume(): void {
    this.#foundNoMore = false;
    if (this.#claimInFlight) this.#claimAgain = true;
    else this.refill();
  }

  /**
   * Called at regular intervals: gives back jobs that have waited too long, and claims jobs with and without a group.
   */
  async tick(): Promise<void> {
    this.#giveBackStale();
    if (this.#host.isPaused) return;
    try {
      await this.#checkGroups();
    } finally {
      this.#resume();
    }
  }

  /** Notifies the fetcher that a grouped job has ended, so that its group may be free. */
  groupEnded(): void {
    this.#hasGroupedJobs = this.#mayClaimGroups;
    this.wake();
  }

  /** Records how long a job took, and its timeout, s; null and 0 = none. */
  measure(durationMs: number, timeout: number | null): void {
    this.#measuredJobs++;
    this.#averageMs =
      this.#averageMs === null ? durationMs : this.#averageMs + (durationMs - this.#averageMs) / 100;
    if (timeout) this.#shortestTimeoutMs = Math.min(this.#shortestTimeoutMs, timeout * 1_000);
  }

  /** Claims jobs if enough of the buffer is used up. Cheap enough to call after every job. */
  refill(): void {
    if (this.#claimInFlight || this.#foundNoMore || this.#isStopped || this.#retryTimer) return;
    const target = this.#targetSize();
    const { buffered } = this;
    const free = this.#host.freeSlots();
    const wanted = free + target - buffered;
    if (wanted <= 0 || (target > 0 && buffered > target / 2)) return;
    const rampUpLimit = free + Math.ceil(target * minBufferShare) + growthFactor * buffered;
    const limit = Math.min(
      Math.min(wanted, rampUpLimit) * this.#unreadableFactor,
      this.#maxPerClaim,
      this.#host.maxToClaim(),
    );
    if (limit <= 0) return;
    const mayWait = this.#options.mayWaitForThread || limit + buffered > free;
    this.#claimInFlight = this.#claim(limit, mayWait).finally(() => {
      this.#claimInFlight = null;
      if (this.#claimAgain) {
        this.#claimAgain = false;
        this.#foundNoMore = false;
      }
      this.refill();
    });
  }

  /** Stops claiming. Waits for the claim in flight, and returns the jobs that were claimed and not started. */
  async stop(): Promise<ClaimedJob[]> {
    this.#isStopped = true;
    if (this.#retryTimer) clearTimeout(this.#retryTimer);
    if (this.#groupCheckTimer) clearTimeout(this.#groupCheckTimer);
    await this.#claimInFlight;
    return this.#buffer.takeAll();
  }

  /**
   * Plans a check for grouped jobs, at most one per pause. Without it, only the tick would find them, up to 1 s late.
   */
  #planGroupCheck(): void {
    if (this.#groupCheckTimer || this.#isStopped) return;
    const check = async () => {
      try {
        await this.#checkGroups();
        if (this.#hasGroupedJobs) this.#resume();
      } catch (error) {
        this.#options.logger.debug(
          { err: error },
          "could not check for grouped jobs; the next tick checks again",
        );
      } finally {
        if (this.#groupCheckTimer === timer) this.#groupCheckTimer = null;
      }
    };
    const pause = doubled(this.#unsuccessfulGroupChecks, groupCheckPauseMs.first, groupCheckPauseMs.longest);
    // Node.js 24 warns about a negative time.
    const waitMs = Math.max(this.#groupsCheckedAt + pause - performance.now(), 0);
    const timer = setTimeout(() => void check(), waitMs);
    this.#groupCheckTimer = timer;
  }

  async #checkGroups(): Promise<void> {
    this.#groupsCheckedAt = performance.now();
    this.#hasGroupedJobs = (await this.#options.broker.hasGrouped()) && this.#mayClaimGroups;
  }

  get #mayClaimGroups(): boolean {
    return this.#host.excluded === null || performance.now() >= this.#groupsNotBefore;
  }

  #giveBackStale(): void {
    if (this.#buffer.claimedAt > performance.now() - staleMs) return;
    // Jobs take longer than before. Forget the measured duration; otherwise the same jobs would be prefetched again
    // at once.
    this.#averageMs = null;
    this.#measuredJobs = 0;
    this.#host.giveBack(this.#buffer.takeAll());
  }

  #targetSize(): number {
    const { prefetch, concurrency } = this.#options;
    if (!prefetch || this.#averageMs === null || this.#measuredJobs < concurrency) return 0;
    const horizon = Math.min(horizonMs, this.#shortestTimeoutMs / 10);
    // While grouped jobs wait, fewer jobs are prefetched. Each claim returns only a few grouped jobs. The more
    // ungrouped jobs it returns, the later the next claim of grouped jobs starts.
    const max = this.#hasGroupedJobs ? 4 * concurrency : maxBuffered;
    const byDuration = (concurrency * horizon) / Math.max(this.#averageMs, 0.05);
    return Math.floor(Math.min(byDuration, max, maxBufferedBytes / this.#averageBytes));
  }

  #adapt(jobs: number, tookMs: number): void {
    if (tookMs > slowClaimMs && jobs > 0)
      this.#maxPerClaim = Math.min(this.#maxPerClaim, Math.max(Math.floor(jobs / 2), 1));
    else if (tookMs < slowClaimMs / 2) this.#maxPerClaim *= 2;
  }

  /**
   * Renews the claims of these jobs, and returns the jobs that this worker still owns. Their claim returned late,
   * because the server was slow or this process was paused. Other workers may have taken them over meanwhile. The
   * reconciliation gives back the jobs that are not returned.
   */
  async #renew(jobs: ClaimedJob[]): Promise<ClaimedJob[]> {
    const { broker, maxClaimMs } = this.#options;
    this.#jobsInRenewal = jobs;
    try {
      for (let renewal = 0; renewal < maxRenewals && this.#jobsInRenewal.length > 0; renewal++) {
        const sentAt = performance.now();
        const renewed = await broker.renew(this.#jobsInRenewal);
        if (performance.now() - sentAt <= maxClaimMs) return renewed;
        this.#jobsInRenewal = renewed;
      }
      return [];
    } finally {
      this.#jobsInRenewal = [];
    }
  }

  #send(request: ClaimRequest): Promise<ClaimResult> {
    const { current } = this.#options.telemetry;
    return current ? current.claim(() => this.#sendObserved(request)) : this.#sendObserved(request);
  }

  #sendObserved(request: ClaimRequest): Promise<ClaimResult> {
    return claimChannel.hasSubscribers ? this.#publish(request) : this.#options.broker.claim(request);
  }

  /** Sends a claim, and publishes it to the subscribers of the channel `saq:claim`. */
  async #publish(request: ClaimRequest): Promise<ClaimResult> {
    const { broker, queueName: queue } = this.#options;
    const { workerId, limit, grouped } = request;
    let claim: ClaimResult = { jobs: [], more: false };
    await claimChannel.tracePromise(
      async () => {
        claim = await broker.claim(request);
        return claim.jobs.map(({ key }) => key);
      },
      { queue, workerId, limit, grouped },
    );
    return claim;
  }

  /** Claims at most `limit` jobs. `mayWait`: some of them may wait before they start. */
  async #claim(limit: number, mayWait: boolean): Promise<void> {
    const { broker, workerId, priorities, concurrency, maxClaimMs, problems } = this.#options;
    let sentAt = performance.now();
    let requested = 0;
    try {
      // Grouped and ungrouped jobs are claimed first in turn. The first kind gets at most half of the jobs, so that a
      // stream of one kind does not block the other kind. Grouped jobs go to the front of the buffer, at most
      // `concurrency` at a time, because a group is blocked while its job waits there.
      const claimOrder = !this.#hasGroupedJobs
        ? ungroupedOnly
        : this.#claimGroupedFirst
          ? groupedFirst
          : ungroupedFirst;
      this.#claimGroupedFirst = !this.#claimGroupedFirst;
      let remaining = limit;
      let hasMoreUngrouped = false;
      let returned = 0;
      for (const [index, grouped] of claimOrder.entries()) {
        const part = index < claimOrder.length - 1 ? Math.ceil(remaining / 2) : remaining;
        requested = grouped ? Math.min(part, concurrency) : part;
        if (requested <= 0) continue;
        sentAt = performance.now();
        const { excluded } = this.#host;
        const claim = await this.#send({
          workerId,
          priorities,
          limit: requested,
          grouped,
          mayWait,
          excluded,
        });
        const tookMs = performance.now() - sentAt;
        this.#adapt(claim.jobs.length, tookMs);
        this.#unreadableFactor =
          claim.more && claim.jobs.length === 0 && !excluded
            ? Math.min(4 * this.#unreadableFactor, maxUnreadableFactor)
            : 1;
        const jobs = tookMs > maxClaimMs ? await this.#renew(claim.jobs) : claim.jobs;
        returned += claim.jobs.length;
        remaining -= jobs.length;
        if (jobs.length > 0)
          this.#averageBytes = jobs.reduce((sum, { document }) => sum + bytesOf(document), 0) / jobs.length;
        if (grouped) {
          this.#hasGroupedJobs = claim.more;
          if (!claim.more && tookMs > excludingGroups.slowMs)
            this.#groupsNotBefore = performance.now() + excludingGroups.pauseFactor * tookMs;
          this.#unsuccessfulGroupChecks = claim.more ? 0 : this.#unsuccessfulGroupChecks + 1;
        } else hasMoreUngrouped = claim.more;
        this.#buffer.add(jobs, performance.now(), grouped ? "front" : "back");
        if (jobs.length > 0) this.#host.jobsBuffered();
      }
      // No more jobs for now: check whether grouped jobs are waiting.
      if (!hasMoreUngrouped && !this.#hasGroupedJobs) this.#planGroupCheck();
      this.#foundNoMore = !hasMoreUngrouped && !this.#hasGroupedJobs;
      this.#failures = 0;
      problems.succeeded("claim");
      // A claim that found only rows without a job does not mean that no job is left.
      if (returned > 0 || !hasMoreUngrouped) this.#host.jobsClaimed(limit - remaining);
    } catch (error) {
      if (this.#isStopped) return;
      // The server may cancel every claim of this size. Ask for fewer jobs next time; otherwise no claim would succeed.
      // An outage is not caused by the size, so it does not change the size.
      const tookMs = performance.now() - sentAt;
      if (tookMs > slowClaimMs && !broker.isOutage(error)) this.#adapt(requested, tookMs);
      this.#lastError = { error, at: new Date() };
      const retryMs = backoffMs(this.#failures++);
      problems.failed({
        source: "claim",
        error,
        message: "could not claim jobs, trying again",
        fields: { retryInMs: Math.round(retryMs) },
      });
      this.#retryTimer = setTimeout(() => {
        this.#retryTimer = null;
        this.#foundNoMore = false;
        this.refill();
      }, retryMs);
    }
  }
}
