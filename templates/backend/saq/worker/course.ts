/** One scheduled task as a worker sees it: pure, over what the worker remembers and what storage answers. */
import { isDeepStrictEqual } from "node:util";
import type { StoredJob } from "../broker.js";
import { type CronEntry, cronKey } from "../config/index.js";
import { isTerminal } from "../job.js";
import { definitionOf, runOf } from "../queue/schedules.js";
import type { LastRun, ScheduleDefinition } from "../schedule-store.js";
import { read } from "../transitions.js";

/** What this worker knows of an entry. Times are epoch s. */
export interface Course {
  readonly entry: CronEntry;
  next: number;
  /** When `next` was looked up. */
  since: number;
  /** The tick that is known to be stored, or not to be stored by anybody any more. */
  done: number;
  /** The last tick that went by while this worker looked. */
  seen: number;
  /** What was last said about it, so that it is said once. */
  said: string;
}

/** Looks up the next tick when the last one has passed. The clock may be set back, too. */
export function isOpen(course: Course, now: number): boolean {
  if (now >= course.next || now < course.since) {
    if (course.next > 0 && now >= course.next) course.seen = course.next;
    course.since = now;
    course.next = course.entry.cron.next(now) ?? Number.POSITIVE_INFINITY;
  }
  return course.next !== course.done && course.next !== Number.POSITIVE_INFINITY;
}

/** A job of this key may be the entry's next tick. Whether it is, the entry's own rounds tell. */
export function mayWait(entry: CronEntry, key: string): boolean {
  if (entry.overlap === "skip") return key === cronKey(entry, 0);
  const tick = Number(key.slice(key.lastIndexOf(":") + 1));
  return Number.isSafeInteger(tick) && key === cronKey(entry, tick) && entry.cron.isRun(tick);
}

export const isDefinition = (row: ScheduleDefinition, entry: CronEntry): boolean =>
  isDeepStrictEqual(ticksOf(row), ticksOf(definitionOf(entry)));

const ticksOf = ({ cron, timezone, overlap }: ScheduleDefinition) => [cron, timezone, overlap];

/** How the last run ended, before the next tick takes its row. */
export function endOf(row: StoredJob): LastRun | null {
  const { key, status } = row;
  const job = isTerminal(status) ? read(row) : null;
  return job && isTerminal(status) ? runOf(key, status, job) : null;
}
