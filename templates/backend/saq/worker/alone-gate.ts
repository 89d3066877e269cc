/**
 * Runs a job alone: while it waits for the slots to become empty, and while it runs, no worker of this process starts
 * another job.
 *
 * A job whose worker died twice while the job ran may be the cause. If it ran beside other jobs, each loss would count
 * for them too, and after `lostLimit` losses they would fail with it. All workers of a process share the gate, because
 * an uncaught error in a job of one queue ends the workers of all queues.
 *
 * The wait has a timeout: another job may run for hours, or may itself wait for a job that cannot start meanwhile.
 */

/** How long a job waits for the slots of this process to become empty, ms. */
const maxWaitMs = 30_000;

export interface AloneJob {
  /**
   * Called when no other job runs. The worker must then call `started` and later `ended` of the gate, or `notStarted`
   * if the job does not start after all.
   */
  start(): void;
  /** Called when the slots did not become empty in time, or when the worker stops. */
  giveUp(): void;
}

interface WaitingJob {
  readonly job: AloneJob;
  readonly timer: NodeJS.Timeout;
}

export class AloneGate {
  /** Number of jobs that run in all workers of this process. */
  #running = 0;
  readonly #waiting: WaitingJob[] = [];
  #isRunningAlone = false;
  readonly #openCallbacks = new Set<() => void>();

  /** True if jobs may start. */
  get isOpen(): boolean {
    return this.#waiting.length === 0 && !this.#isRunningAlone;
  }

  /** Calls `resume` once, when the gate opens. */
  onceOpen(resume: () => void): void {
    this.#openCallbacks.add(resume);
  }

  started(): void {
    this.#running++;
  }

  /** Records that a job has ended. `wasAlone`: it was the job that ran alone. */
  ended(wasAlone: boolean): void {
    this.#running--;
    if (wasAlone) this.#isRunningAlone = false;
    if (wasAlone || this.#waiting.length > 0) this.#startNext();
  }

  /** Records that the job whose `start` was called does not start after all. */
  notStarted(): void {
    this.#isRunningAlone = false;
    this.#startNext();
  }

  /** Calls `job.start` when no other job runs in this process, or `job.giveUp` after a timeout. */
  wait(job: AloneJob): void {
    const timer = setTimeout(() => this.#giveUp(job), maxWaitMs);
    this.#waiting.push({ job, timer });
    this.#startNext();
  }

  /** Gives up these jobs, because their worker stops. */
  withdraw(jobs: ReadonlySet<AloneJob>): void {
    for (const job of jobs) this.#giveUp(job);
  }

  #giveUp(job: AloneJob): void {
    const index = this.#waiting.findIndex((waiting) => waiting.job === job);
    if (index < 0) return;
    clearTimeout(this.#waiting[index]?.timer);
    this.#waiting.splice(index, 1);
    job.giveUp();
    this.#startNext();
  }

  #startNext(): void {
    while (!this.#isRunningAlone && this.#running === 0) {
      const next = this.#waiting.shift();
      if (!next) break;
      clearTimeout(next.timer);
      this.#isRunningAlone = true;
      next.job.start();
    }
    if (!this.isOpen) return;
    const callbacks = [...this.#openCallbacks];
    this.#openCallbacks.clear();
    for (const resume of callbacks) resume();
  }
}

/** The gate that all workers of this process share. */
export const aloneGate = new AloneGate();
