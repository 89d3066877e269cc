/**
 * What is paused, as one worker knows it. The worker looks here before it claims and before it starts a job, so that
 * neither needs a round trip. Storage sends the pauses when they change, and with each heartbeat. A pause that ends by
 * time ends here by itself.
 */
import type { JobFields } from "../core/job.js";
import { describeTarget, kindOf, nameIn, type Pause, type PausedJobs } from "../core/pause.js";
import type { Logger } from "../logger.js";
import { longestTimerMs } from "../timers.js";

export interface PausesOptions {
  queueName: string;
  workerId: string;
  /** Returns the time of the database's clock, epoch ms. */
  now: () => number;
  logger: Logger;
  /** Called when a pause has begun. */
  onPaused: () => void;
  /** Called when a pause has ended. */
  onResumed: () => void;
}

export class Pauses {
  readonly #options: PausesOptions;
  /** The pauses as storage returned them last. Some may have ended since. */
  #stored: readonly Pause[] = [];
  /** The pauses that are in effect, by their targets. */
  #inEffect: ReadonlyMap<string, Pause> = new Map();
  #isQueuePaused = false;
  #tasks: ReadonlySet<string> = new Set();
  #groups: ReadonlySet<string> = new Set();
  #excluded: PausedJobs | null = null;
  /** Fires when the next pause ends by time. */
  #timer: NodeJS.Timeout | null = null;
  #isStopped = false;

  constructor(options: PausesOptions) {
    this.#options = options;
  }

  /** True while the whole queue is paused. */
  get isQueuePaused(): boolean {
    return this.#isQueuePaused;
  }

  /** What a claim must leave out; null if no task and no group is paused. It is the same object until that changes. */
  get excluded(): PausedJobs | null {
    return this.#excluded;
  }

  /** Returns true if this job must not start. */
  covers({ function: task, groupKey }: Pick<JobFields, "function" | "groupKey">): boolean {
    if (this.#inEffect.size === 0) return false;
    return this.#isQueuePaused || this.#tasks.has(task) || (groupKey !== null && this.#groups.has(groupKey));
  }

  /** Takes the pauses as storage returned them. */
  update(pauses: readonly Pause[]): void {
    if (this.#isStopped || (pauses.length === 0 && this.#stored.length === 0)) return;
    this.#stored = pauses;
    this.#apply();
  }

  /** Called when the worker stops: from now on nothing changes any more. */
  stop(): void {
    this.#isStopped = true;
    if (this.#timer) clearTimeout(this.#timer);
  }

  #apply(): void {
    const now = this.#options.now();
    const previous = this.#inEffect;
    const current = new Map<string, Pause>();
    for (const pause of this.#stored)
      if (pause.until === null || pause.until > now) current.set(`${kindOf(pause)} ${nameIn(pause)}`, pause);
    this.#inEffect = current;
    this.#planEnd(now);
    const begun = [...current].filter(([target]) => !previous.has(target));
    const ended = [...previous].filter(([target]) => !current.has(target));
    if (begun.length === 0 && ended.length === 0) return;
    this.#index([...current.values()]);
    for (const [, pause] of begun) this.#log(pause, "Paused");
    for (const [, pause] of ended) this.#log(pause, "Resumed");
    if (begun.length > 0) this.#options.onPaused();
    if (ended.length > 0) this.#options.onResumed();
  }

  #index(pauses: readonly Pause[]): void {
    const tasks = pauses.flatMap(({ task }) => (task === null ? [] : [task])).sort();
    const groups = pauses.flatMap(({ group }) => (group === null ? [] : [group])).sort();
    this.#isQueuePaused = pauses.some((pause) => kindOf(pause) === "queue");
    this.#tasks = new Set(tasks);
    this.#groups = new Set(groups);
    this.#excluded = tasks.length + groups.length > 0 ? { tasks, groups } : null;
  }

  #planEnd(now: number): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
    const ends = [...this.#inEffect.values()].flatMap(({ until }) => until ?? []);
    if (ends.length === 0) return;
    // A timer may fire shortly before its time.
    const waitMs = Math.min(Math.max(Math.min(...ends) - now, 0) + 1, longestTimerMs);
    this.#timer = setTimeout(() => this.#apply(), waitMs);
  }

  #log(pause: Pause, what: "Paused" | "Resumed"): void {
    const { logger, workerId, queueName } = this.#options;
    const { by, reason, until } = pause;
    const details = what === "Paused" ? { by, reason, until: until && new Date(until).toISOString() } : {};
    logger.info({ workerId, ...details }, `${what}: ${describeTarget(pause, queueName)}`);
  }
}
