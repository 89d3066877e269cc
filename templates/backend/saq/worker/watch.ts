/** What a worker keeps an eye on beside its jobs: its own sign of life, jobs that are to end, workers that died. */
import type { Broker, JobEvent, SweepLimits } from "../broker.js";
import type { QueueConfig } from "../config/index.js";
import { describe, type Logger } from "../logger.js";
import type { Queue } from "../queue/queue.js";
import { type Attempt, lossText } from "./attempt.js";
import type { Chore } from "./upkeep.js";

/** Between two comparisons of the worker's claims with the database's record of them. */
const reconcileSeconds = 3;

/**
 * What others wait on top of a job's timeout or heartbeat before they step in, s (5.2): its task may end until the hard
 * deadline, and recording that may take a while.
 */
export const sweepGraceSeconds = ({ config, broker }: Pick<Queue, "config" | "broker">): number =>
  config.cancellationHardDeadline + broker.recordSeconds;

/**
 * After that long without word from storage a worker may not rely on what it knew, s: less than others wait before
 * they take over its jobs, whatever they take it for.
 */
export const certainSeconds = ({ cancellationHardDeadline }: QueueConfig): number =>
  cancellationHardDeadline + 5;

/** The chores that look after jobs: those that run here, and those that others left behind. */
export function watch(
  queue: Queue,
  runner: {
    readonly running: ReadonlyMap<string, Attempt>;
    readonly isResting: boolean;
    isSuspended(): boolean;
    reconcile(): Promise<void>;
  },
  ended: EndedElsewhere,
  logger: Logger,
): Chore[] {
  const { broker, config } = queue;
  const { timers } = config;
  const limits = (): SweepLimits => ({
    graceSeconds: sweepGraceSeconds(queue),
    lostLimit: config.lostLimit,
    lookEvery: timers.lost,
    failedTtl: config.failedTtl,
  });
  const say = (keys: string[]) => {
    if (keys.length > 0) logger.info({ jobs: keys.slice(0, 20), count: keys.length }, "Sweeping");
  };
  const ofRunningJobs = {
    every: timers.abort,
    notBefore: () => (runner.isResting ? Number.POSITIVE_INFINITY : 0),
  };
  return [
    { ...ofRunningJobs, name: "silence", run: async () => interruptSilent(runner.running) },
    { ...ofRunningJobs, name: "lease", run: async () => interruptSuspended(runner) },
    { ...ofRunningJobs, name: "abort", run: () => ended.lookAtOlder(timers.abort / 4) },
    { name: "claims", every: reconcileSeconds, run: () => runner.reconcile() },
    { name: "lost", every: timers.lost, run: async () => say(await broker.sweepLost(limits())) },
    { name: "sweep", every: timers.sweep, run: async () => say(await broker.sweepStuck(limits())) },
  ];
}

/** Jobs that have been silent for longer than their heartbeat. Asks nobody, so that it works without a database. */
function interruptSilent(running: ReadonlyMap<string, Attempt>): void {
  const now = performance.now();
  for (const attempt of running.values()) {
    const { heartbeat } = attempt.fields;
    if (heartbeat && now - attempt.aliveAt > heartbeat * 1_000) {
      attempt.interrupt("timeout", `no heartbeat for ${heartbeat} s`);
    }
  }
}

/** All jobs of a worker that could not show for long that it lives: from a few seconds later on others may run them. */
function interruptSuspended(runner: { running: ReadonlyMap<string, Attempt>; isSuspended(): boolean }): void {
  if (!runner.isSuspended()) return;
  for (const attempt of runner.running.values())
    attempt.interrupt("lost", "this worker could not renew its row in time, so others may run its jobs");
}

/** Running jobs that somebody aborted or took over: storage tells, and is asked now and then where it cannot (W-14). */
export class EndedElsewhere {
  /** Told while a look was under way. */
  readonly #told = new Set<string>();
  #looking: Promise<void> | null = null;

  constructor(
    private readonly broker: Broker,
    private readonly running: ReadonlyMap<string, Attempt>,
    private readonly logger: Logger,
  ) {}

  /** Something happened to a job; null: to any, unseen. */
  told(event: JobEvent | null): void {
    const keys = event ? [event.key] : this.running.keys();
    for (const key of keys) if (this.running.has(key)) this.#told.add(key);
    if (this.#told.size > 0) this.#looking ??= this.#lookAtTold();
  }

  /** The youngest are left for the next look: most are over by then. s */
  async lookAtOlder(seconds: number): Promise<void> {
    const young = performance.now() - seconds * 1_000;
    await this.#look([...this.running.values()].filter((attempt) => attempt.startedAt < young));
  }

  async #lookAtTold(): Promise<void> {
    try {
      while (this.#told.size > 0) {
        const attempts = [...this.#told].flatMap((key) => this.running.get(key) ?? []);
        this.#told.clear();
        await this.#look(attempts);
      }
    } catch (error) {
      this.logger.debug(describe(error), "could not look for aborted jobs, the next look will tell");
    } finally {
      this.#looking = null;
    }
  }

  async #look(attempts: readonly Attempt[]): Promise<void> {
    if (attempts.length === 0) return;
    const attemptOf = new Map(attempts.map((attempt) => [attempt.fields.key, attempt]));
    for (const { key, why } of await this.broker.interrupted(attempts.map(({ claim }) => claim))) {
      const attempt = attemptOf.get(key);
      if (why !== "abort") attempt?.interrupt("lost", lossText[why]);
      else if (attempt?.interrupt("abort", "aborted")) this.logger.info({ job: key }, `Aborting ${key}`);
    }
  }
}
