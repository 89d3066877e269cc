/** The periodic checks of a worker: jobs that run here and must end, its own sign of life, and jobs of dead workers. */

import type { Broker, JobEvent, SweepLimits } from "../../broker.js";
import { describe, type Logger } from "../../logger.js";
import type { Queue } from "../../queue/queue.js";
import { type Attempt, lossText } from "../attempt.js";
import { sweepGraceSeconds } from "../time-limits.js";
import type { PeriodicTask } from "./periodic-tasks.js";

/** Seconds between two comparisons of the worker's claims with the database's record of them. */
const reconcileSeconds = 3;

/** Returns the tasks that check jobs: those that run here, and those that other workers left behind. */
export function monitorTasks(
  queue: Queue,
  runner: {
    readonly running: ReadonlyMap<string, Attempt>;
    readonly isResting: boolean;
    isSuspended(): boolean;
    reconcile(): Promise<void>;
  },
  ended: EndedElsewhere,
  logger: Logger,
): PeriodicTask[] {
  const { broker, config } = queue;
  const { timers } = config;
  const limits = (): SweepLimits => ({
    graceSeconds: sweepGraceSeconds(queue),
    lostLimit: config.lostLimit,
    checkInterval: timers.lost,
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

/** Interrupts jobs that have been silent for longer than their heartbeat. It works without a database. */
function interruptSilent(running: ReadonlyMap<string, Attempt>): void {
  const now = performance.now();
  for (const attempt of running.values()) {
    const { heartbeat } = attempt.fields;
    if (heartbeat && now - attempt.lastHeartbeatAt > heartbeat * 1_000) {
      attempt.interrupt("timeout", `no heartbeat for ${heartbeat} s`);
    }
  }
}

/**
 * Interrupts all jobs if the worker could not renew its row for too long: a few seconds later other workers may run
 * them.
 */
function interruptSuspended(runner: { running: ReadonlyMap<string, Attempt>; isSuspended(): boolean }): void {
  if (!runner.isSuspended()) return;
  for (const attempt of runner.running.values())
    attempt.interrupt("lost", "this worker could not renew its row in time, so others may run its jobs");
}

/**
 * Interrupts running jobs that were aborted or taken over. Storage sends events about them; it is also asked at
 * intervals, because not every change sends an event.
 */
export class EndedElsewhere {
  /** Keys of running jobs with an event since the last look at them. */
  readonly #told = new Set<string>();
  #looking: Promise<void> | null = null;

  constructor(
    private readonly broker: Broker,
    private readonly running: ReadonlyMap<string, Attempt>,
    private readonly logger: Logger,
  ) {}

  /** Called with each event about a job. Null: events may have been missed, so all running jobs are looked at. */
  told(event: JobEvent | null): void {
    const keys = event ? [event.key] : this.running.keys();
    for (const key of keys) if (this.running.has(key)) this.#told.add(key);
    if (this.#told.size > 0) this.#looking ??= this.#lookAtTold();
  }

  /**
   * Looks at the jobs that have run for longer than `seconds`. Younger ones are left for the next look, because most of
   * them have ended by then.
   */
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
    for (const { key, why } of await this.broker.findInterrupted(attempts.map(({ claim }) => claim))) {
      const attempt = attemptOf.get(key);
      if (why !== "abort") attempt?.interrupt("lost", lossText[why]);
      else if (attempt?.interrupt("abort", "aborted")) this.logger.info({ job: key }, `Aborting ${key}`);
    }
  }
}
