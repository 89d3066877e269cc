/**
 * Sends the progress and heartbeats of all running jobs of a worker, many per statement. Best effort: while the
 * database is unreachable nothing fails, and only the latest values of each job are kept. They are sent when the
 * database is back.
 */
import type { Heartbeat } from "../broker.js";
import type { JobFields } from "../core/job.js";
import { encodeChange } from "../core/wire.js";
import { withTimeout } from "../timers.js";
import type { Attempt } from "./attempt.js";

/** Timeout of `ctx.job.update` for its statement. */
const maxWaitMs = 1_000;
/** Pause between two tries while the database is unreachable. */
const retryMs = 1_000;
/**
 * Maximum number of statements in flight. One that waits for a locked row takes long, and the others go on meanwhile.
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
  /** Resolves when the pending changes have been sent once; null if no sending is planned. */
  #sent: Promise<void> | null = null;
  /** Jobs whose change is in flight. A job is in one statement at a time, or its earlier value might be stored last. */
  readonly #underWay = new Set<Attempt>();
  #statements = 0;
  /** The timer of the next try; null unless sending fails. */
  #retry: NodeJS.Timeout | null = null;

  constructor(options: ProgressSenderOptions) {
    this.#options = options;
  }

  /** Resolves when the change is stored, or cannot be sent for now. Never rejects. */
  async send(attempt: Attempt, change: Partial<JobFields>): Promise<void> {
    this.#pending.set(attempt, { ...this.#pending.get(attempt), ...change });
    if (this.#retry) {
      // A task that reports in a loop must yield to the event loop, or the timer of the next try would never fire.
      await new Promise((resolve) => setImmediate(resolve));
      return;
    }
    // The changes of one turn of the event loop are sent together.
    this.#sent ??= new Promise<void>((resolve) => setImmediate(resolve)).then(() => this.#flush());
    await withTimeout(maxWaitMs, this.#sent);
  }

  /** Drops the changes that are still pending. */
  stop(): void {
    if (this.#retry) clearTimeout(this.#retry);
    this.#retry = null;
    this.#pending.clear();
  }

  async #flush(): Promise<void> {
    this.#sent = null;
    // When one of these statements ends, it sends what is pending then.
    if (this.#statements >= maxStatements) return;
    const changes = this.#take();
    if (changes.size === 0) return;
    this.#statements++;
    try {
      await this.#heartbeat(changes);
      this.#options.succeeded();
    } catch (error) {
      for (const [attempt, change] of changes)
        this.#pending.set(attempt, { ...change, ...this.#pending.get(attempt) });
      this.#options.failed(error);
      this.#retry ??= setTimeout(() => {
        this.#retry = null;
        void this.#flush();
      }, retryMs);
    } finally {
      this.#statements--;
      for (const attempt of changes.keys()) this.#underWay.delete(attempt);
    }
    if (!this.#retry) void this.#flush();
  }

  #take(): Map<Attempt, Partial<JobFields>> {
    const changes = new Map<Attempt, Partial<JobFields>>();
    for (const [attempt, change] of this.#pending) {
      if (this.#underWay.has(attempt)) continue;
      this.#pending.delete(attempt);
      if (attempt.isOver) continue;
      this.#underWay.add(attempt);
      changes.set(attempt, change);
    }
    return changes;
  }

  async #heartbeat(changes: ReadonlyMap<Attempt, Partial<JobFields>>): Promise<void> {
    const attempts = [...changes.keys()];
    const heartbeats = attempts.map((attempt) => ({
      ...attempt.claim,
      ...encodeChange({ ...changes.get(attempt), touched: attempt.fields.touched }),
    }));
    const owned = await this.#options.heartbeat(heartbeats);
    const notOwned = attempts.filter((attempt, index) => !owned[index] && !attempt.isOver);
    // If this check fails, the next check for aborted jobs finds them.
    await Promise.all(notOwned.map((attempt) => attempt.checkOwnership().catch(() => {})));
  }
}
