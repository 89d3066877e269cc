/** The periodic checks of a worker: running jobs that must end, its own lease, and the jobs of dead workers. */

import type { Broker, JobEvent, SweepLimits } from "../../broker.js";
import { describe, type Logger } from "../../logger.js";
import type { Queue } from "../../queue/queue.js";
import { withTimeout } from "../../timers.js";
import { type Attempt, lossText } from "../attempt/attempt.js";
import { sweepGraceSeconds } from "../time-limits.js";
import type { PeriodicTask } from "./periodic-tasks.js";

/** Seconds between two comparisons of the worker's claims with the database's record of them. */
const reconcileSeconds = 3;
/** How long a worker that must end its jobs soon waits for the renewal of its row, ms. */
const renewalTimeoutMs = 1_000;

/** Returns the tasks that check jobs: those that run here, and those that other workers left behind. */
export function monitorTasks(
  queue: Queue,
  runner: {
    readonly running: ReadonlyMap<string, Attempt>;
    readonly isResting: boolean;
    isSuspended(): boolean;
    reconcile(): Promise<void>;
  },
  ownershipMonitor: OwnershipMonitor,
  { renewLease, logger }: { renewLease: () => Promise<void>; logger: Logger },
): PeriodicTask[] {
  const { broker, config } = queue;
  const { timers } = config;
  const limits = (): SweepLimits => ({
    graceSeconds: sweepGraceSeconds(queue),
    lostLimit: config.lostLimit,
    checkInterval: timers.lost,
    failedTtl: config.failedTtl,
  });
  const logSwept = (keys: string[]) => {
    if (keys.length > 0) logger.info({ jobs: keys.slice(0, 20), count: keys.length }, "Sweeping");
  };
  const whileJobsRun = {
    every: timers.abort,
    notBefore: () => (runner.isResting ? Number.POSITIVE_INFINITY : 0),
  };
  return [
    { ...whileJobsRun, name: "heartbeat_timeout", run: async () => interruptSilent(runner.running) },
    { ...whileJobsRun, name: "lease", run: () => interruptSuspended(runner, renewLease) },
    { ...whileJobsRun, name: "abort", run: () => ownershipMonitor.checkOlderThan(timers.abort / 4) },
    { name: "claims", every: reconcileSeconds, run: () => runner.reconcile() },
    { name: "lost", every: timers.lost, run: async () => logSwept(await broker.sweepLost(limits())) },
    { name: "sweep", every: timers.sweep, run: async () => logSwept(await broker.sweepStuck(limits())) },
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
 * them. After a pause of this process, for example because a task blocked the event loop, the last renewal is old
 * although storage can be reached. So the row is renewed first.
 */
async function interruptSuspended(
  runner: { running: ReadonlyMap<string, Attempt>; isSuspended(): boolean },
  renewLease: () => Promise<void>,
): Promise<void> {
  if (!runner.isSuspended()) return;
  await withTimeout(renewalTimeoutMs, renewLease());
  if (!runner.isSuspended()) return;
  for (const attempt of runner.running.values()) {
    attempt.interrupt(
      "lost",
      "this worker could not renew its row in time, so other workers may run its jobs",
    );
  }
}

/**
 * Interrupts running jobs that were aborted or taken over. Storage sends events about them; it is also asked at
 * intervals, because not every change sends an event.
 */
export class OwnershipMonitor {
  /** Keys of running jobs with an event since they were last checked. */
  readonly #keysToCheck = new Set<string>();
  #checking: Promise<void> | null = null;

  constructor(
    private readonly broker: Broker,
    private readonly running: ReadonlyMap<string, Attempt>,
    private readonly logger: Logger,
  ) {}

  /** Called with each event about a job. Null: events may have been missed, so all running jobs are checked. */
  onJobEvent(event: JobEvent | null): void {
    const keys = event ? [event.key] : this.running.keys();
    for (const key of keys) if (this.running.has(key)) this.#keysToCheck.add(key);
    if (this.#keysToCheck.size > 0) this.#checking ??= this.#checkEvents();
  }

  /**
   * Checks the jobs that have run for longer than `seconds`. Younger jobs are left for the next check, because most of
   * them have ended by then.
   */
  async checkOlderThan(seconds: number): Promise<void> {
    const startedBefore = performance.now() - seconds * 1_000;
    await this.#check([...this.running.values()].filter((attempt) => attempt.startedAt < startedBefore));
  }

  async #checkEvents(): Promise<void> {
    try {
      while (this.#keysToCheck.size > 0) {
        const attempts = [...this.#keysToCheck].flatMap((key) => this.running.get(key) ?? []);
        this.#keysToCheck.clear();
        await this.#check(attempts);
      }
    } catch (error) {
      this.logger.debug(describe(error), "could not check for aborted jobs; the next check finds them");
    } finally {
      this.#checking = null;
    }
  }

  async #check(attempts: readonly Attempt[]): Promise<void> {
    if (attempts.length === 0) return;
    const attemptOf = new Map(attempts.map((attempt) => [attempt.fields.key, attempt]));
    for (const { key, reason } of await this.broker.findInterrupted(attempts.map(({ claim }) => claim))) {
      const attempt = attemptOf.get(key);
      if (reason !== "abort") attempt?.interrupt("lost", lossText[reason]);
      else if (attempt?.interrupt("abort", "aborted")) this.logger.info({ job: key }, `Aborting ${key}`);
    }
  }
}
