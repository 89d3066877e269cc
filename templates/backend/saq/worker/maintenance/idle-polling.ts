/**
 * Looks for jobs at each due second, or skips the second if the worker has nothing to do.
 *
 * Workers are notified of jobs that are due soon when these jobs are stored, so an idle worker need not ask for them.
 * It asks storage which other work may come. If jobs run elsewhere or wait in groups, it asks again at the next second,
 * because Python sends no notification when it gives such jobs back. On Redis it asks every second, because nobody
 * sends a notification for a scheduled job: such jobs started up to 5 s late. Otherwise it looks again when the next
 * waiting job is due, at the latest after 5 s: 3 -> 0.2 statements per second (4.5 -> 0.9 transactions per second for
 * an idle worker in all, with the rounds that its periodic tasks skip). A job that sends no notification and that no
 * other look finds then waits up to 5 s: a row that somebody inserts by hand, or a later job whose transaction stayed
 * open until it was nearly due.
 */
import { notifyAheadSeconds } from "../../broker.js";
import type { Queue } from "../../queue/queue.js";
import type { Runner } from "../runner.js";

/**
 * Maximum time between two looks, s: half of the time that notifications reach ahead. So no job is missed if a clock is
 * wrong or a look is late.
 */
const maxPauseSeconds = notifyAheadSeconds / 2;

export class IdlePolling {
  /** No look is needed before this time, epoch s by the database's clock. */
  #idleUntil = 0;
  /** True if a job becomes due at `#idleUntil`. */
  #hasDueJob = false;
  /** Number of calls of `wake`. */
  #wakes = 0;

  constructor(
    private readonly queue: Queue,
    private readonly runner: Runner,
  ) {}

  /** No tick is needed before this time, epoch ms by the database's clock. */
  get idleUntilMs(): number {
    return this.#idleUntil * 1_000;
  }

  /** Looks for jobs at once, because a job may be claimable now or soon. */
  wake(): void {
    this.#wakes++;
    this.#idleUntil = 0;
    this.#hasDueJob = false;
    this.runner.wake();
  }

  /** Called at each due second: looks for jobs unless there is no need to. */
  async tick(): Promise<void> {
    const { broker, config } = this.queue;
    const now = broker.now() / 1_000;
    // If `#idleUntil` is later than `maxPauseSeconds` from now, the database's clock was set back: look all the same.
    if (now < this.#idleUntil && this.#idleUntil <= now + maxPauseSeconds) return;
    const hasDueJob = this.#hasDueJob;
    const wakesBefore = this.#wakes;
    this.#idleUntil = 0;
    this.#hasDueJob = false;
    if (hasDueJob || !this.runner.isResting) return this.runner.tick();
    if (this.runner.isPaused) {
      if (broker.isListening) this.#idleUntil = now + maxPauseSeconds;
      return this.runner.tick();
    }
    const { due, grouped, unannounced } = await broker.nextWork(config.priorities).catch((error: unknown) => {
      // Claiming fails too: it logs the problem and retries with pauses.
      this.runner.wake();
      throw error;
    });
    if (grouped || (due !== null && due <= now)) return this.runner.tick();
    if (unannounced || !broker.isListening || wakesBefore !== this.#wakes) return;
    this.#hasDueJob = due !== null && due <= now + maxPauseSeconds;
    this.#idleUntil = this.#hasDueJob && due !== null ? due : now + maxPauseSeconds;
  }
}
