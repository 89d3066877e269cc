/**
 * Runs a job without neighbours: while it waits for the slots to become empty and while it runs, no worker of this
 * process starts another job.
 *
 * A job that was running when its worker died twice may be what ends the process, and it would take its neighbours with
 * it each time: after `lostLimit` losses they would fail with it. All workers of a process share the gate, because an
 * uncaught error in a job of one queue ends the workers of all queues.
 *
 * The wait is bounded: a neighbour may run for hours, or wait itself for a job that cannot start meanwhile.
 */

/** How long a job waits for the slots of this process to become empty, ms. */
const maxWaitMs = 30_000;

export interface AloneJob {
  /** It is the job's turn: then `started` and `ended` follow, or `passed` when it does not start after all. */
  start(): void;
  /** The slots did not become empty in time, or the worker stops. */
  giveUp(): void;
}

interface Waiting {
  readonly job: AloneJob;
  readonly timer: NodeJS.Timeout;
}

export class AloneGate {
  /** Jobs that run in this process, in all its workers. */
  #running = 0;
  readonly #waiting: Waiting[] = [];
  #isRunningAlone = false;
  readonly #onOpen = new Set<() => void>();

  /** Jobs may start. */
  get isOpen(): boolean {
    return this.#waiting.length === 0 && !this.#isRunningAlone;
  }

  /** Calls `resume` once, when the gate opens. */
  onceOpen(resume: () => void): void {
    this.#onOpen.add(resume);
  }

  started(): void {
    this.#running++;
  }

  /** A job has ended; `wasAlone`: the one that ran alone. */
  ended(wasAlone: boolean): void {
    this.#running--;
    if (wasAlone) this.#isRunningAlone = false;
    if (wasAlone || this.#waiting.length > 0) this.#goOn();
  }

  /** The job whose turn it was does not start. */
  passed(): void {
    this.#isRunningAlone = false;
    this.#goOn();
  }

  /** Starts the job when no other runs in this process. */
  wait(job: AloneJob): void {
    const timer = setTimeout(() => this.#giveUp(job), maxWaitMs);
    this.#waiting.push({ job, timer });
    this.#goOn();
  }

  /** The worker of these jobs stops. */
  withdraw(jobs: ReadonlySet<AloneJob>): void {
    for (const job of jobs) this.#giveUp(job);
  }

  #giveUp(job: AloneJob): void {
    const index = this.#waiting.findIndex((waiting) => waiting.job === job);
    if (index < 0) return;
    clearTimeout(this.#waiting[index]?.timer);
    this.#waiting.splice(index, 1);
    job.giveUp();
    this.#goOn();
  }

  #goOn(): void {
    while (!this.#isRunningAlone && this.#running === 0) {
      const next = this.#waiting.shift();
      if (!next) break;
      clearTimeout(next.timer);
      this.#isRunningAlone = true;
      next.job.start();
    }
    if (!this.isOpen) return;
    const resumes = [...this.#onOpen];
    this.#onOpen.clear();
    for (const resume of resumes) resume();
  }
}

/** Of this process. */
export const aloneGate = new AloneGate();
