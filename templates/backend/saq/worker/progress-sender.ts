/**
 * Sends the progress and signs of life of all running jobs of a worker, many per statement. Best effort: while the
 * database is away nothing fails and nothing is queued; what is known of each job then is sent when the database is
 * back.
 */
import type { Touch } from "../broker.js";
import type { JobFields } from "../job.js";
import { encodeChange } from "../wire.js";
import { within } from "../within.js";
import type { Attempt } from "./attempt.js";

/** How long `ctx.job.update` waits for its statement. */
const maxWaitMs = 1_000;
/** Between two tries while the database is away. */
const retryMs = 1_000;
/** Statements under way: one that meets a row that somebody's transaction holds takes long, and the others go on. */
const maxStatements = 4;

export interface ProgressSenderOptions {
  /** Answers which claims still own their job. */
  touch: (changes: readonly Touch[]) => Promise<boolean[]>;
  failed: (error: unknown) => void;
  succeeded: () => void;
}

export class ProgressSender {
  readonly #options: ProgressSenderOptions;
  /** What is to be sent; of two values for one job the later. */
  readonly #pending = new Map<Attempt, Partial<JobFields>>();
  /** Resolves when what is pending now was sent once. */
  #sent: Promise<void> | null = null;
  /** A job is in one statement at a time: of two, the earlier value might be stored last. */
  readonly #underWay = new Set<Attempt>();
  #statements = 0;
  /** Runs while sending fails. */
  #retry: NodeJS.Timeout | null = null;

  constructor(options: ProgressSenderOptions) {
    this.#options = options;
  }

  /** Resolves when the change is stored, or could not be sent for now. Never rejects. */
  async send(attempt: Attempt, change: Partial<JobFields>): Promise<void> {
    this.#pending.set(attempt, { ...this.#pending.get(attempt), ...change });
    if (this.#retry) {
      // A task that reports in a loop must leave the event loop its turn: else the database is never asked again.
      await new Promise((resolve) => setImmediate(resolve));
      return;
    }
    // Those of one turn of the event loop leave together.
    this.#sent ??= new Promise<void>((resolve) => setImmediate(resolve)).then(() => this.#flush());
    await within(maxWaitMs, this.#sent);
  }

  /** What is still pending is dropped. */
  stop(): void {
    if (this.#retry) clearTimeout(this.#retry);
    this.#retry = null;
    this.#pending.clear();
  }

  async #flush(): Promise<void> {
    this.#sent = null;
    // A statement that ends takes along what is pending then.
    if (this.#statements >= maxStatements) return;
    const changes = this.#take();
    if (changes.size === 0) return;
    this.#statements++;
    try {
      await this.#touch(changes);
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

  async #touch(changes: ReadonlyMap<Attempt, Partial<JobFields>>): Promise<void> {
    const attempts = [...changes.keys()];
    const touches = attempts.map((attempt) => ({
      ...attempt.claim,
      ...encodeChange({ ...changes.get(attempt), touched: attempt.fields.touched }),
    }));
    const owned = await this.#options.touch(touches);
    const notOwned = attempts.filter((attempt, index) => !owned[index] && !attempt.isOver);
    // Where this look fails, the next look for aborted jobs finds them.
    await Promise.all(notOwned.map((attempt) => attempt.findOwner().catch(() => {})));
  }
}
