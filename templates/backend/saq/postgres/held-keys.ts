/**
 * Stores jobs whose keys another transaction holds, or may hold. They are stored apart from the other enqueues, so that
 * no other job waits for that transaction: without this, 20 held keys delayed an unrelated job by 42.7 s.
 */
import type { Decided } from "../broker.js";
import type { EnqueueOutcome, NewJob } from "../core/new-job.js";
import { SaqError } from "../errors.js";
import { isLockTimeout } from "./connection/errors.js";

/** How long a job waits for its key, ms. */
const timeoutMs = 2_000;
/** Pause between two checks whether the transaction has ended, ms. */
const pauseMs = 200;
/** Jobs are first stored together in batches, then alone: if a flush met a held key, most of its keys are free. */
const batchSize = 16;

interface Waiting {
  readonly job: NewJob;
  readonly decided: Decided<EnqueueOutcome>;
  readonly until: number;
  /** The key was held when the job was last sent alone, and no check has succeeded since. */
  isHeld: boolean;
}

export interface HeldKeysOptions {
  /** Stores jobs of different keys. Fails soon with a lock timeout if one of the keys is held. */
  store: (jobs: NewJob[]) => Promise<EnqueueOutcome[]>;
  pause: (ms: number) => Promise<void>;
}

export class HeldKeys {
  /** The waiting jobs of each key, in the order of the calls. */
  readonly #waiting = new Map<string, Waiting[]>();
  #running: Promise<void> | null = null;

  constructor(private readonly options: HeldKeysOptions) {}

  /** True if a job of this key waits here: later jobs of the key must wait behind it. */
  has(key: string): boolean {
    return this.#waiting.has(key);
  }

  /**
   * Resolves when the job is stored or refused.
   *
   * @throws SaqError key_held when the key is held for 2 s
   */
  store(job: NewJob): Promise<EnqueueOutcome> {
    return new Promise((resolve, reject) => {
      const until = performance.now() + timeoutMs;
      const entry = { job, decided: { resolve, reject }, until, isHeld: false };
      const waiting = this.#waiting.get(job.key);
      if (waiting) waiting.push(entry);
      else this.#waiting.set(job.key, [entry]);
      this.#running ??= this.#run();
    });
  }

  /** Resolves when no job waits here. */
  async drained(): Promise<void> {
    while (this.#running) await this.#running;
  }

  async #run(): Promise<void> {
    for (let round = 0; this.#waiting.size > 0; round++) {
      const heads = [...this.#waiting.values()].flatMap(([head]) => head ?? []);
      const untried = heads.filter(({ isHeld }) => !isHeld);
      const overdue = heads.filter(({ until }) => until <= performance.now());
      for (let from = 0; from < untried.length; from += batchSize)
        await this.#store(untried.slice(from, from + batchSize));
      if (untried.length > 0) continue;
      for (const entry of overdue) await this.#store([entry]);
      if (overdue.length > 0) continue;
      await this.options.pause(pauseMs);
      // One check is enough for all keys: usually a single transaction holds them.
      const checked = heads[round % heads.length];
      if (!checked || !(await this.#store([checked]))) continue;
      for (const [head] of this.#waiting.values()) if (head) head.isHeld = false;
    }
    this.#running = null;
  }

  /** Returns true if the statement succeeded for all jobs, so that none of their keys is held. */
  async #store(entries: Waiting[]): Promise<boolean> {
    try {
      const outcomes = await this.options.store(entries.map(({ job }) => job));
      for (const [index, entry] of entries.entries()) {
        const outcome = outcomes[index];
        this.#removeFirst(entry);
        if (outcome) entry.decided.resolve(outcome);
      }
      return true;
    } catch (error) {
      if (!isLockTimeout(error)) for (const entry of entries) this.#fail(entry, error);
      else if (entries.length > 1) for (const entry of entries) await this.#store([entry]);
      else for (const entry of entries) this.#onHeld(entry, error);
      return false;
    }
  }

  #onHeld(entry: Waiting, error: unknown): void {
    entry.isHeld = true;
    if (entry.until <= performance.now()) this.#fail(entry, keyHeldError(entry.job.key, error));
  }

  #fail(entry: Waiting, error: unknown): void {
    this.#removeFirst(entry);
    entry.decided.reject(error);
  }

  #removeFirst({ job: { key } }: Waiting): void {
    const waiting = this.#waiting.get(key);
    waiting?.shift();
    if (waiting?.length === 0) this.#waiting.delete(key);
  }
}

const keyHeldError = (key: string, cause: unknown): SaqError =>
  new SaqError(
    "key_held",
    `Job key ${JSON.stringify(key)} is held by a transaction that has been open for over 2 s; nothing was stored. ` +
      "Enqueue it again when that transaction has ended.",
    { cause },
  );
