/**
 * Sends the progress and heartbeats of all running jobs of a worker, many per statement. Best effort: while the
 * database is unreachable nothing fails, and only the latest values of each job are kept. They are sent when the
 * database is back.
 */
import type { Heartbeat } from "../../broker.js";
import type { JobFields } from "../../core/job.js";
import { encodeChange } from "../../core/wire.js";
import { withTimeout } from "../../timers.js";
import type { Attempt } from "./attempt.js";

/** Timeout of `ctx.job.update` for its statement. */
const maxWaitMs = 1_000;
/** Pause between two tries while the database is unreachable. */
const retryMs = 1_000;
/**
 * Maximum number of statements in flight. A statement that waits for a locked row takes long; the others continue
 * meanwhile.
 */
const maxStatements = 4;

export interface ProgressSenderOptions {
  /** Returns for each change whether its claim still owns the job. */
  heartbeat: (changes: readonly Heartbeat[]) => Promise<boolean[]>;
  failed: (error: unknown) => void;
  succeeded: () => void;
}

export class ProgressSender {
  readonly #options: ProgressSenderOptions;
  /** Changes to be sent; of two values for one job, the later one. */
  readonly #pending = new Map<Attempt, Partial<JobFields>>();
  /** Resolves when the pending changes have been sent once; null if no flush is planned. */
  #nextFlush: Promise<void> | null = null;
  /** Jobs whose change is in flight. A job is in one statement at a time, or its earlier value might be stored last. */
  readonly #inFlight = new Set<Attempt>();
  #statements = 0;
  /** The timer of the next try; null unless sending fails. */
  #retryTimer: NodeJS.Timeout | null = null;

  constructor(options: ProgressSenderOptions) {
    this.#options = options;
  }

  /** Resolves when the change is stored, or cannot be sent for now. Never rejects. */
  async send(attempt: Attempt, change: Partial<JobFields>): Promise<void> {
    this.#pending.set(attempt, { ...this.#pending.get(attempt), ...change });
    if (this.#retryTimer) {
      // A task that reports in a loop must yield to the event loop, or the timer of the next try would never fire.
      await new Promise((resolve) => setImmediate(resolve));
      return;
    }
    // The changes of one turn of the event loop are sent together.
    this.#nextFlush ??= new Promise<void>((resolve) => setImmediate(resolve)).then(() => this.#flush());
    await withTimeout(maxWaitMs, this.#nextFlush);
  }

  /** Drops the changes that are still pending. */
  stop(): void {
    if (this.#retryTimer) clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
    this.#pending.clear();
  }

  async #flush(): Promise<void> {
    this.#nextFlush = null;
    // When one of these statements ends, it sends what is pending then.
    if (this.#statements >= maxStatements) return;
    const changes = this.#takePending();
    if (changes.size === 0) return;
    this.#statements++;
    try {
      await this.#send(changes);
      this.#options.succeeded();
    } catch (error) {
      for (const [attempt, change] of changes)
        this.#pending.set(attempt, { ...change, ...this.#pending.get(attempt) });
      this.#options.failed(error);
      this.#retryTimer ??= setTimeout(() => {
        this.#retryTimer = null;
        void this.#flush();
      }, retryMs);
    } finally {
      this.#statements--;
      for (const attempt of changes.keys()) this.#inFlight.delete(attempt);
    }
    if (!this.#retryTimer) void this.#flush();
  }

  #takePending(): Map<Attempt, Partial<JobFields>> {
    const changes = new Map<Attempt, Partial<JobFields>>();
    for (const [attempt, change] of this.#pending) {
      if (this.#inFlight.has(attempt)) continue;
      this.#pending.delete(attempt);
      if (attempt.isOver) continue;
      this.#inFlight.add(attempt);
      changes.set(attempt, change);
    }
    return changes;
  }

  async #send(changes: ReadonlyMap<Attempt, Partial<JobFields>>): Promise<void> {
    const attempts = [...changes.keys()];
    const heartbeats = attempts.map((attempt) => ({
      ...attempt.claim,
      ...encodeChange({ ...changes.get(attempt), touched: attempt.fields.touched }),
    }));
    const isOwned = await this.#options.heartbeat(heartbeats);
    const notOwned = attempts.filter((attempt, index) => !isOwned[index] && !attempt.isOver);
    // If this check fails, the next check for aborted jobs finds them.
    await Promise.all(notOwned.map((attempt) => attempt.checkOwnership().catch(() => {})));
  }
}
