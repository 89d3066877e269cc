/** The state of one scheduled task in a worker: pure functions over what the worker knows and what storage returns. */
import { isDeepStrictEqual } from "node:util";
import { type CronEntry, cronKey } from "../../config/index.js";
import { isTerminal } from "../../core/job.js";
import type { LastRun, ScheduleDefinition } from "../../core/schedule-store.js";
import type { StoredJob } from "../../core/stored-job.js";
import { read } from "../../core/stored-job.js";
import { definitionOf, runOf } from "../../queue/schedules.js";

/** What this worker knows about an entry of `scheduledTasks`. Times are epoch s. */
export interface ScheduleState {
  readonly entry: CronEntry;
  /** The next tick. */
  next: number;
  /** When `next` was computed. */
  computedAt: number;
  /** The last tick that needs no work any more: it is stored, or it must not be stored. */
  done: number;
  /** The last tick that passed while this worker watched the entry. */
  seen: number;
  /** A tick that passed while no worker ran, and that must be stored before the next one; 0 = none. */
  missed: number;
  /** The tick for which storage has answered that the entry is paused; 0 = none. */
  paused: number;
  /** The last problem of the entry that was logged, so that each is logged once. */
  lastLogged: string;
}

/**
 * Returns true if the next tick still has to be stored. The next tick is computed again when the previous one has
 * passed, or when the clock was set back.
 */
export function mustBeStored(state: ScheduleState, now: number): boolean {
  if (now >= state.next || now < state.computedAt) {
    if (state.next > 0 && now >= state.next) state.seen = state.next;
    state.computedAt = now;
    state.next = state.entry.cron.next(now) ?? Number.POSITIVE_INFINITY;
  }
  return state.next !== state.done && state.next !== Number.POSITIVE_INFINITY;
}

/** Returns true if a job with this key may be the entry's next tick. The rounds of the scheduler find out if it is. */
export function mayBeTickOf(entry: CronEntry, key: string): boolean {
  if (entry.overlap === "skip") return key === cronKey(entry, 0);
  const tick = Number(key.slice(key.lastIndexOf(":") + 1));
  return Number.isSafeInteger(tick) && key === cronKey(entry, tick) && entry.cron.isRun(tick);
}

/** Returns true if the stored definition is that of this entry. */
export const isDefinitionOf = (row: ScheduleDefinition, entry: CronEntry): boolean =>
  isDeepStrictEqual(timesOf(row), timesOf(definitionOf(entry)));

const timesOf = ({ cron, timezone, overlap }: ScheduleDefinition) => [cron, timezone, overlap];

/** Returns how the last run ended, before the next tick takes its row; null if it has not ended or cannot be read. */
export function endedRunOf(row: StoredJob): LastRun | null {
  const { key, status } = row;
  const job = isTerminal(status) ? read(row) : null;
  return job && isTerminal(status) ? runOf(key, status, job) : null;
}
