/**
 * What storage remembers about recurring tasks beside their jobs (`saq_cron` on PostgreSQL). Where it cannot remember,
 * the jobs alone keep a tick from being stored twice, as in SAQ (V-5.2); pausing and making up for missed ticks then
 * do not work.
 */
import type { TerminalStatus } from "./job.js";
import type { NewJob, Refusal } from "./new-job.js";

/** One entry of `scheduledTasks`, as storage knows it. */
export interface ScheduleDefinition {
  name: string;
  task: string;
  cron: string;
  timezone: string;
  overlap: "skip" | "allow";
}

/** How a run ended, kept because the next tick's job takes the row of the last one. Times are epoch ms. */
export interface LastRun {
  key: string;
  status: TerminalStatus;
  started: number;
  completed: number;
  error: string | null;
}

export interface ScheduleRow extends ScheduleDefinition {
  /** The last tick that needs no run any more: it was stored, or somebody saw it go by. Epoch s. */
  tick: number;
  paused: boolean;
  lastRun: LastRun | null;
}

/** A tick about to be stored. */
export interface Tick extends ScheduleDefinition {
  job: NewJob;
  /** The last tick that went by while this worker looked, stored or not; 0 = none. Epoch s. */
  seen: number;
  /** Null = nothing new. */
  lastRun: LastRun | null;
}

/** `done`: this tick was stored before. `busy`: another worker is at it right now. */
export type TickAnswer = "stored" | "done" | "paused" | "busy" | Refusal;

export interface ScheduleStore {
  /**
   * Makes these the queue's definitions, and answers what is remembered of them; null when nothing can be. A changed
   * definition starts anew: nothing of it was missed. Entries that are not among them are forgotten.
   */
  register(definitions: readonly ScheduleDefinition[]): Promise<ScheduleRow[] | null>;
  /** What is remembered of the queue's entries; null when nothing can be. */
  list(): Promise<ScheduleRow[] | null>;
  /** Stores ticks that nobody has stored yet, unless their entry is paused. One answer each. */
  enqueue(ticks: readonly Tick[]): Promise<TickAnswer[]>;
  /** Keys of the cron jobs that wait for their time. */
  waiting(): Promise<string[]>;
  /**
   * Holds for every worker, from the next tick on that is stored.
   *
   * @throws SaqError config when nothing can be remembered
   */
  setPaused(definition: ScheduleDefinition, paused: boolean): Promise<void>;
}
