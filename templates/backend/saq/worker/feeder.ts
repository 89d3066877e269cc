/**
 * Claims jobs ahead of the slots that will run them.
 *
 * One claim is under way at a time; a wake-up during it means one more afterwards. As long as claims come back full
 * there is more to fetch, and the next one starts when the buffer is half empty, so that claiming overlaps with running
 * and acknowledging. When one comes back short, the feeder rests until it is woken (a notification, a due second).
 *
 * How far ahead: what runs within 250 ms at the duration measured lately, and within a tenth of the jobs' timeout.
 * Large payloads make it fewer. No-op jobs fly; jobs of a second are fetched one by one, so that no worker hoards what another could run. A fresh
 * feeder has measured nothing and fetches nothing ahead.
 */

import { backoffMs, doubled } from "../backoff.js";
import type { Broker, ClaimedJob } from "../broker.js";
import { bytesOf } from "../byte-size.js";
import type { Logger } from "../logger.js";
import type { ProblemLog } from "../problem-log.js";
import { Ahead } from "./ahead.js";

const horizonMs = 250;
/** Each claim walks over what others claimed before it, so larger ones are cheaper (1,000 -> 2,000: drain 1.07, of 200,000 jobs 1.13). */
const mostAhead = 2_000;
/** Bytes of documents that lie ahead: few jobs with large payloads, where many small ones may. */
const mostBytesAhead = 16 * 1024 * 1024;
/**
 * A claim of all that is to lie ahead would leave the slots waiting for it when little does. A small one is soon back, and
 * the next is under way while its jobs run; a no-op job runs for three times as long as claiming it takes.
 */
const leastShare = 1 / 8;
const growth = 3;
/**
 * A claim that took longer halves the number of jobs of the next; one that took less than half of it doubles it again.
 */
const slowClaimMs = 2_000;
/**
 * While claims find only rows that hold no job, each asks for four times as many rows as the last, up to this factor.
 */
const maxPoisonFactor = 64;
/** How often jobs that were claimed too long ago are renewed before they are left to others. */
const maxRenewals = 3;
/** Claimed jobs that still wait after this long are given back: the estimate was wrong. */
const staleMs = 1_000;
/**
 * A look costs the server 0.06 ms; this often, a trickle of jobs without a group pays little for those with one. Each
 * look in a row after which nothing could be claimed, because their groups are busy or they are not due, doubles the
 * pause, up to that of the tick.
 */
const groupLookMs = { first: 20, longest: 1_000 };

export interface FeederOptions {
  broker: Broker;
  workerId: string;
  concurrency: number;
  priorities: readonly [number, number];
  prefetch: boolean;
  /** Others may have taken over what was claimed longer ago than that, ms. */
  answerMs: number;
  logger: Logger;
  problems: ProblemLog;
  /** A claimed job may have to wait although a slot is free: for a thread. */
  mayWait: boolean;
  /** Slots that could run a job now. */
  freeSlots: () => number;
  /** Called when jobs have arrived in the buffer. */
  ready: () => void;
  giveBack: (jobs: ClaimedJob[]) => void;
  /** Most jobs that may be claimed now. */
  allowance: () => number;
  /** A claim came back, with so many jobs. */
  claimed: (jobs: number) => void;
}

export class Feeder {
  readonly #options: FeederOptions;
  readonly #buffer = new Ahead();
  #busy: Promise<void> | null = null;
  #again = false;
  #dry = false;
  #grouped = false;
  #groupsFirst = true;
  #groupsLookedAt = 0;
  /** Looks in a row that found jobs with a group, of which none could be claimed. */
  #vainLooks = 0;
  #look: NodeJS.Timeout | null = null;
  #stopped = false;
  #failures = 0;
  #lastError: { error: unknown; at: Date } | null = null;
  #retry: NodeJS.Timeout | null = null;
  /** ms per job, averaged over the last hundred or so; null before any. */
  #duration: number | null = null;
  #measured = 0;
  /** Bytes of a document, on average over the last claim that brought some. */
  #bytes = 1;
  /** Most jobs per claim, by how long claims take. */
  #maxPerClaim = Number.POSITIVE_INFINITY;
  /** A claim asks for this many times as many rows, because the last ones held no job. */
  #poisonFactor = 1;
  /** Claimed too long ago to be started; storage is asked whose they are. */
  #late: readonly ClaimedJob[] = [];
  #shortestTimeoutMs = Number.POSITIVE_INFINITY;

  constructor(options: FeederOptions) {
    this.#options = options;
  }

  /** Why the last claim that failed did so; stays when claims work again (D-4). */
  get lastError(): { error: unknown; at: Date } | null {
    return this.#lastError;
  }

  /** Claims fail at present. */
  get isFailing(): boolean {
    return this.#failures > 0;
  }

  /** The last claim found no more, and nothing has happened since. */
  get isDry(): boolean {
    return this.#dry && !this.#busy;
  }

  get buffered(): number {
    return this.#buffer.size;
  }

  /** The jobs that were claimed and nobody runs yet. */
  *claims(): Generator<ClaimedJob> {
    yield* this.#buffer.claims();
    yield* this.#late;
  }

  /** The oldest claimed job that nobody runs yet. */
  next(): ClaimedJob | undefined {
    // After a pause of this process others may run by now what lies here: only storage knows, so back with it.
    this.#giveBackStale();
    return this.#buffer.next();
  }

  /** Something may be claimable now. */
  wake(): void {
    this.#vainLooks = 0;
    this.#goOn();
  }

  #goOn(): void {
    this.#dry = false;
    if (this.#busy) this.#again = true;
    else this.refill();
  }

  /** A due second: look for grouped jobs too, and give back what has waited too long. */
  async tick(): Promise<void> {
    this.#giveBackStale();
    try {
      await this.#lookForGroups();
    } finally {
      this.#goOn();
    }
  }

  /** A grouped job ended, so that its group may be free. */
  groupEnded(): void {
    this.#grouped = true;
    this.wake();
  }

  /** Learns how long jobs take. Timeout in s; null and 0 = none. */
  measure(durationMs: number, timeout: number | null): void {
    this.#measured++;
    this.#duration =
      this.#duration === null ? durationMs : this.#duration + (durationMs - this.#duration) / 100;
    if (timeout) this.#shortestTimeoutMs = Math.min(this.#shortestTimeoutMs, timeout * 1_000);
  }

  /** Claims when enough of the buffer is used up. Cheap to call after every job. */
  refill(): void {
    if (this.#busy || this.#dry || this.#stopped || this.#retry) return;
    const target = this.#ahead();
    const { buffered } = this;
    const free = this.#options.freeSlots();
    const wanted = free + target - buffered;
    if (wanted <= 0 || (target > 0 && buffered > target / 2)) return;
    const soon = free + Math.ceil(target * leastShare) + growth * buffered;
    const limit = Math.min(
      Math.min(wanted, soon) * this.#poisonFactor,
      this.#maxPerClaim,
      this.#options.allowance(),
    );
    if (limit <= 0) return;
    const ahead = this.#options.mayWait || limit + buffered > free;
    this.#busy = this.#claim(limit, ahead).finally(() => {
      this.#busy = null;
      if (this.#again) {
        this.#again = false;
        this.#dry = false;
      }
      this.refill();
    });
  }

  /** Ends claiming; answers what was claimed and never run, once the claim under way has come back. */
  async stop(): Promise<ClaimedJob[]> {
    this.#stopped = true;
    if (this.#retry) clearTimeout(this.#retry);
    if (this.#look) clearTimeout(this.#look);
    await this.#busy;
    return this.#buffer.empty();
  }

  /** Not after every claim of a slow trickle, but soon after the last: the tick alone would be up to 1 s late. */
  #lookSoon(): void {
    if (this.#look || this.#stopped) return;
    const look = async () => {
      try {
        await this.#lookForGroups();
        if (this.#grouped) this.#goOn();
      } catch (error) {
        this.#options.logger.debug({ err: error }, "could not look for grouped jobs, the next tick will");
      } finally {
        this.#look = null;
      }
    };
    const pause = doubled(this.#vainLooks, groupLookMs.first, groupLookMs.longest);
    this.#look = setTimeout(() => void look(), this.#groupsLookedAt + pause - performance.now());
  }

  async #lookForGroups(): Promise<void> {
    this.#groupsLookedAt = performance.now();
    this.#grouped = await this.#options.broker.hasGrouped();
  }

  #giveBackStale(): void {
    if (this.#buffer.claimedAt > performance.now() - staleMs) return;
    // Jobs take longer than they did: forget what was measured, or the same jobs would be fetched ahead again at once.
    this.#duration = null;
    this.#measured = 0;
    this.#options.giveBack(this.#buffer.empty());
  }

  #ahead(): number {
    const { prefetch, concurrency } = this.#options;
    if (!prefetch || this.#duration === null || this.#measured < concurrency) return 0;
    const horizon = Math.min(horizonMs, this.#shortestTimeoutMs / 10);
    // While groups wait too, less: each claim brings a few of theirs, so the more of the others it brings, the later
    // comes the next turn of the groups.
    const most = this.#grouped ? 4 * concurrency : mostAhead;
    const byDuration = (concurrency * horizon) / Math.max(this.#duration, 0.05);
    return Math.floor(Math.min(byDuration, most, mostBytesAhead / this.#bytes));
  }

  #adapt(jobs: number, tookMs: number): void {
    if (tookMs > slowClaimMs && jobs > 0) this.#maxPerClaim = Math.max(Math.floor(jobs / 2), 1);
    else if (tookMs < slowClaimMs / 2) this.#maxPerClaim *= 2;
  }

  /**
   * The answer came late, because the server took long or this process stood still. Others may have taken these jobs
   * over meanwhile: storage tells which of them are still ours. What is not returned is put back by the reconciliation.
   */
  async #renewed(jobs: ClaimedJob[]): Promise<ClaimedJob[]> {
    const { broker, answerMs } = this.#options;
    this.#late = jobs;
    try {
      for (let turn = 0; turn < maxRenewals && this.#late.length > 0; turn++) {
        const sent = performance.now();
        const renewed = await broker.renew(this.#late);
        if (performance.now() - sent <= answerMs) return renewed;
        this.#late = renewed;
      }
      return [];
    } finally {
      this.#late = [];
    }
  }

  async #claim(limit: number, ahead: boolean): Promise<void> {
    const { broker, workerId, priorities, concurrency, answerMs, problems } = this.#options;
    let sent = performance.now();
    let share = 0;
    try {
      // Grouped and ungrouped jobs take turns at being first, and the first leaves half to the other: a stream of one
      // kind must not starve the other. Grouped ones go to the front of the buffer, few at a time, because a group
      // stands still while its job waits there.
      const lanes = !this.#grouped ? [false] : this.#groupsFirst ? [true, false] : [false, true];
      this.#groupsFirst = !this.#groupsFirst;
      let left = limit;
      let more = false;
      let found = 0;
      for (const [turn, grouped] of lanes.entries()) {
        const half = turn < lanes.length - 1 ? Math.ceil(left / 2) : left;
        share = grouped ? Math.min(half, concurrency) : half;
        if (share <= 0) continue;
        sent = performance.now();
        const answer = await broker.claim({ workerId, priorities, limit: share, grouped, ahead });
        const took = performance.now() - sent;
        this.#adapt(answer.jobs.length, took);
        this.#poisonFactor =
          answer.more && answer.jobs.length === 0 ? Math.min(4 * this.#poisonFactor, maxPoisonFactor) : 1;
        const jobs = took > answerMs ? await this.#renewed(answer.jobs) : answer.jobs;
        found += answer.jobs.length;
        left -= jobs.length;
        if (jobs.length > 0)
          this.#bytes = jobs.reduce((sum, { document }) => sum + bytesOf(document), 0) / jobs.length;
        if (grouped) {
          this.#grouped = answer.more;
          this.#vainLooks = answer.more ? 0 : this.#vainLooks + 1;
        } else more = answer.more;
        this.#buffer.add(jobs, performance.now(), grouped ? "front" : "back");
        if (jobs.length > 0) this.#options.ready();
      }
      // Nothing more for now: ask whether groups are waiting.
      if (!more && !this.#grouped) this.#lookSoon();
      this.#dry = !more && !this.#grouped;
      this.#failures = 0;
      problems.succeeded("claim");
      // Rows that hold no job are no sign that none is left.
      if (found > 0 || !more) this.#options.claimed(limit - left);
    } catch (error) {
      if (this.#stopped) return;
      // The server may cancel each claim of this size: fewer jobs next time, or none would ever succeed.
      const took = performance.now() - sent;
      if (took > slowClaimMs) this.#adapt(share, took);
      this.#lastError = { error, at: new Date() };
      const wait = backoffMs(this.#failures++);
      problems.failed({
        source: "claim",
        error,
        message: "could not claim jobs, trying again",
        fields: { retryInMs: Math.round(wait) },
      });
      this.#retry = setTimeout(() => {
        this.#retry = null;
        this.#dry = false;
        this.refill();
      }, wait);
    }
  }
}
