/**
 * What storage remembers about recurring tasks beside their jobs (`saq_cron` on PostgreSQL). If it cannot remember
 * anything, only the jobs prevent a tick from being stored twice, as in SAQ: while the row of a tick's job exists, its
 * key does not accept that tick again. Pausing and making up for missed ticks then do not work.
 */
import type { TerminalStatus } from "./job.js";
import type { NewJob, Refusal } from "./new-job.js";

/** One entry of `scheduledTasks`, as storage knows it. */
export interface ScheduleDefinition {
  /** Name of the entry, unique in its queue. */
  name: string;
  task: string;
  /** The cron expression as it was given. */
  cron: string;
  /** IANA name. */
  timezone: string;
  overlap: "skip" | "allow";
}

/**
 * The end of a run. It is kept because the job of the next tick replaces the row of the last one. Times are epoch ms.
 */
export interface LastRun {
  key: string;
  status: TerminalStatus;
  started: number;
  completed: number;
  error: string | null;
}

export interface ScheduleRow extends ScheduleDefinition {
  /** The last tick that needs no run any more: it was stored, or a worker saw it pass. Epoch s. */
  tick: number;
  paused: boolean;
  lastRun: LastRun | null;
}

/** A tick that is about to be stored. */
export interface Tick extends ScheduleDefinition {
  job: NewJob;
  /** The last tick that passed while this worker was watching, stored or not; 0 = none. Epoch s. */
  seen: number;
  /** The last run to remember; null = nothing new. */
  lastRun: LastRun | null;
}

/** `done`: this tick was stored before. `busy`: another worker is storing it right now. */
export type TickAnswer = "stored" | "done" | "paused" | "busy" | Refusal;

export interface ScheduleStore {
  /**
   * Makes these the queue's definitions, and returns what is remembered of them; null if nothing can be remembered. A
   * changed definition starts anew: none of its ticks counts as missed. Other entries are forgotten unless they are
   * paused.
   */
  register(definitions: readonly ScheduleDefinition[]): Promise<ScheduleRow[] | null>;
  /** Returns what is remembered of the queue's entries; null if nothing can be remembered. */
  list(): Promise<ScheduleRow[] | null>;
  /** Stores the ticks that are not stored yet, unless their entry is paused. Returns one answer per tick. */
  enqueue(ticks: readonly Tick[]): Promise<TickAnswer[]>;
  /** Returns the keys of the cron jobs that wait for their time. */
  waiting(): Promise<string[]>;
  /**
   * Pauses or resumes an entry for all workers, from the next tick on that is stored.
   *
   * @throws SaqError config if nothing can be remembered
   */
  setPaused(definition: ScheduleDefinition, paused: boolean): Promise<void>;
}
