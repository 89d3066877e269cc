/**
 * Stores the next tick of every recurring task before it is due, as SAQ does: a queued job that becomes due at its
 * second. Every worker does this, and storage accepts the tick of one worker only: the key of an ended job is taken
 * again only with a later due time, and the table saq_cron records the ticks that were stored. A tick that is known to
 * be stored is not tried again, so nothing is written between two ticks, and while a run is active the worker only
 * reads its row. From time to time the worker checks that the stored ticks are still there: a pause that is over, or
 * the start of an older worker, may have deleted one.
 *
 * The rounds are half a second away from the ticks. So two workers whose clocks differ a little look for the same tick,
 * and the run of an every-second entry has ended by then if it is short.
 */

import { type CronEntry, cronKey } from "../../config/index.js";
import { isTerminal } from "../../core/job.js";
import { hasRun } from "../../core/job-meta.js";
import type { ScheduleRow } from "../../core/schedule-store.js";
import { read, type StoredJob } from "../../core/stored-job.js";
import { describe, type Logger } from "../../logger.js";
import type { Queue } from "../../queue/queue.js";
import { type DraftedTick, definitionOf, deleteWaitingTick } from "../../queue/schedules.js";
import type { PeriodicTask } from "../maintenance/periodic-tasks.js";
import {
  endedRunOf,
  isDefinitionOf,
  mayBeTickOf,
  mustBeStored,
  type ScheduleState,
} from "./schedule-state.js";

/** Seconds between two checks that the ticks known to be stored are still there. */
const reviewSeconds = 10;

/** Returns the task that stores ticks, or none if the queue has no scheduled tasks. */
export function schedule(queue: Queue, logger: Logger): PeriodicTask[] {
  const { config, broker } = queue;
  if (!config.scheduledTasks) return [];
  const scheduler = new Scheduler(queue, config.scheduledTasks, logger);
  return [
    {
      name: "cron",
      every: config.timers.schedule,
      alignedTo: () => broker.now() - 500,
      runsAtStart: true,
      run: () => scheduler.round(),
    },
  ];
}

/** An entry, and its tick that is about to be stored. */
interface DraftedState {
  state: ScheduleState;
  drafted: DraftedTick;
}

export class Scheduler {
  readonly #queue: Queue;
  readonly #logger: Logger;
  readonly #states: readonly ScheduleState[];
  #isRegistered = false;
  /** Time of the last check of the stored ticks, epoch s. */
  #reviewedAt = 0;

  constructor(queue: Queue, entries: readonly CronEntry[], logger: Logger) {
    this.#queue = queue;
    this.#logger = logger;
    this.#states = entries.map((entry) => ({
      entry,
      next: 0,
      computedAt: Number.POSITIVE_INFINITY,
      done: 0,
      seen: 0,
      missed: 0,
      paused: 0,
      lastLogged: "",
    }));
  }

  async round(): Promise<void> {
    if (!this.#isRegistered) await this.#register();
    const now = this.#now();
    await this.#reopenDeleted(now);
    await this.#storeMissed();
    const open = this.#states.filter(
      (state) => state.missed === 0 && this.#isolate(state, () => mustBeStored(state, now)) === true,
    );
    if (open.length > 0) await this.#store(open.map((state) => ({ state, tick: state.next })));
  }

  /**
   * First round: stores our schedules, deletes waiting ticks that no schedule owns any more, and looks for missed
   * ticks.
   */
  async #register(): Promise<void> {
    const { broker } = this.#queue;
    const definitions = this.#states.map(({ entry }) => definitionOf(entry));
    const rows = await broker.schedules.register(definitions);
    await this.#deleteUnowned();
    this.#findMissed(rows ?? []);
    this.#isRegistered = true;
  }

  /**
   * Deletes waiting ticks that no entry owns. Their entry was removed, or each tick has its own key and the entry's
   * times were changed.
   */
  async #deleteUnowned(): Promise<void> {
    const unowned = (await this.#queue.broker.schedules.waiting()).filter(
      (key) => !this.#states.some(({ entry }) => mayBeTickOf(entry, key)),
    );
    const foreign: string[] = [];
    for (const key of unowned)
      if ((await deleteWaitingTick(this.#queue, key)) === "foreign") foreign.push(key);
    if (foreign.length > 0) {
      this.#logger.warn(
        { jobs: foreign.slice(0, 20), count: foreign.length },
        "waiting cron jobs belong to no scheduled task here; another program stored them, so they are not deleted",
      );
    }
  }

  /**
   * Finds stored ticks that were deleted since, so that they are stored again. A pause deletes them: storage remembers
   * the pause, so they are stored again when it is over. The start of a worker without the entry deletes them too: then
   * they are stored again only shortly before they are due. So a removed entry does not run again, unless a worker that
   * still has it runs at that time.
   */
  async #reopenDeleted(now: number): Promise<void> {
    const near = now + 2 * this.#queue.config.timers.schedule;
    const known = this.#states.filter(({ next, done }) => next === done && next > now);
    const isTime =
      Math.abs(now - this.#reviewedAt) >= reviewSeconds || known.some(({ next }) => next <= near);
    if (known.length === 0 || !isTime) return;
    const rows = await this.#queue.broker.schedules.list();
    this.#reviewedAt = now;
    for (const state of known) {
      const row = rows?.find(({ name }) => name === state.entry.name);
      const isOpenAgain = row
        ? !row.paused && row.tick < state.next && isDefinitionOf(row, state.entry)
        : state.next <= near;
      if (isOpenAgain) state.done = 0;
    }
  }

  /** Finds the entries that ask for one run at the start for all ticks that were missed. */
  #findMissed(rows: readonly ScheduleRow[]): void {
    const now = this.#now();
    for (const state of this.#states) {
      const { misfire, name, cron } = state.entry;
      const row = rows.find((candidate) => candidate.name === name);
      const tick = misfire === "once" && row && !row.paused ? cron.previous(now) : null;
      if (row && tick !== null && tick > row.tick) state.missed = tick;
    }
  }

  /**
   * Stores missed ticks. If others hold an entry's row at this moment, its missed tick is tried again in the next
   * round: they may not be storing it, but only registering the same entry. The next tick waits for it, because a
   * missed tick is not stored after a later one.
   */
  async #storeMissed(): Promise<void> {
    const missed = this.#states.filter((state) => state.missed > 0);
    if (missed.length > 0) await this.#store(missed.map((state) => ({ state, tick: state.missed })));
  }

  async #store(candidates: readonly { state: ScheduleState; tick: number }[]): Promise<void> {
    const wanted = await this.#withoutPaused(candidates);
    if (wanted.length === 0) return;
    const rows = await this.#readRows(wanted);
    const ticks: DraftedState[] = [];
    for (const { state, tick } of wanted) {
      const toStore = await this.#isolate(state, async () => {
        const found = await this.#tickToStore(state, tick, rows);
        if (!found) state.missed = 0;
        return found;
      });
      if (toStore) ticks.push({ state, drafted: toStore });
    }
    if (ticks.length === 0) return;
    try {
      await this.#enqueue(ticks);
    } catch (error) {
      // One entry may be the cause, for instance if an open transaction holds its key: store each one by itself.
      if (ticks.length === 1) throw error;
      for (const one of ticks) await this.#isolate(one.state, () => this.#enqueue([one]));
    }
  }

  /**
   * Leaves out the ticks whose entry is still paused. Each is tried once, so that storage records the ticks that have
   * passed. After that only the pause is read, because observers see each try as a call that stores a job.
   */
  async #withoutPaused<Wanted extends { state: ScheduleState; tick: number }>(
    wanted: readonly Wanted[],
  ): Promise<readonly Wanted[]> {
    if (!wanted.some(({ state, tick }) => state.paused === tick)) return wanted;
    const rows = await this.#queue.broker.schedules.list();
    const paused = new Set(rows?.flatMap((row) => (row.paused ? [row.name] : [])));
    return wanted.filter(({ state, tick }) => state.paused !== tick || !paused.has(state.entry.name));
  }

  /** Returns the rows that have the ticks' keys, and those of the previous runs, by key. */
  async #readRows(
    wanted: readonly { state: ScheduleState; tick: number }[],
  ): Promise<Map<string, StoredJob>> {
    const keys = wanted.flatMap(({ state: { entry, seen }, tick }) => [
      cronKey(entry, tick),
      ...(entry.overlap === "allow" && seen > 0 ? [cronKey(entry, seen)] : []),
    ]);
    const rows = await this.#queue.broker.jobs(keys);
    return new Map(rows.flatMap((row) => (row ? [[row.key, row] as const] : [])));
  }

  /** Returns the tick to store, or null if there is nothing to store, now or at all. */
  async #tickToStore(
    state: ScheduleState,
    second: number,
    rows: ReadonlyMap<string, StoredJob>,
  ): Promise<DraftedTick | null> {
    const { entry } = state;
    const key = cronKey(entry, second);
    const row = rows.get(key);
    if (row && !isTerminal(row.status)) {
      if (row.status === "queued" && row.scheduled === second) state.done = second;
      if (!this.#isOutdated(row, second) || !(await this.#deleteOutdated(state, row))) return null;
    } else if (
      row &&
      row.scheduled >= second &&
      !(row.scheduled > second && (await this.#freeAborted(state, row, second)))
    ) {
      // The tick has run, or was aborted before its time: a tick is not enqueued again.
      state.done = second;
      return null;
    }
    const last = row ?? rows.get(cronKey(entry, state.seen));
    return {
      ...(await this.#queue.schedules.draftTick(entry, second)),
      tick: { ...definitionOf(entry), seen: state.seen, lastRun: last ? endedRunOf(last) : null },
    };
  }

  /**
   * True if a waiting job is due at another time than `second`, and that time has not passed. Our entry has no tick
   * between now and `second`, so another definition may have created the job. A job that has run waits for its next
   * attempt at a time that no definition names.
   */
  #isOutdated(row: StoredJob, second: number): boolean {
    if (row.status !== "queued" || row.scheduled === second) return false;
    if (row.scheduled <= Math.min(second, this.#now())) return false;
    const job = read(row);
    return job === null || !hasRun(job);
  }

  /**
   * Deletes a waiting job that was created for another time by an older definition of this entry, whose workers may
   * still run. A job of another program stays. The definition that was registered last decides. Returns true if the key
   * is free now.
   */
  async #deleteOutdated(state: ScheduleState, row: StoredJob): Promise<boolean> {
    const { cron } = state.entry;
    if (!(await this.#isLatest(state))) return false;
    const deleted = await deleteWaitingTick(
      this.#queue,
      row.key,
      (clock) => cron.next(clock) !== row.scheduled,
    );
    if (deleted === "foreign") {
      this.#logOnce(state, `waits ${row.scheduled}`, () =>
        this.#logger.warn(
          { job: row.key, scheduled: row.scheduled, cron: cron.text },
          "a job of another program has the key of this scheduled task's next tick, so the tick is not stored",
        ),
      );
    }
    return deleted === true;
  }

  /**
   * Frees the key of an aborted tick that an older definition had stored for a later time: that abort is not meant for
   * earlier ticks. Returns true if the key is free now.
   */
  async #freeAborted(state: ScheduleState, { key }: StoredJob, second: number): Promise<boolean> {
    if (!(await this.#isLatest(state))) return false;
    const freed = await this.#queue.broker.updateLocked(key, ({ status, scheduled }, clock) =>
      status === "aborted" && scheduled > Math.max(second, clock / 1_000)
        ? { change: { status, patch: null, removed: [], scheduled: 0 }, answer: true }
        : { change: null, answer: false },
    );
    return freed === true;
  }

  /** True if no other definition of the entry was registered since, or if storage remembers no definitions. */
  async #isLatest({ entry }: ScheduleState): Promise<boolean> {
    const stored = await this.#queue.broker.schedules.list();
    const latest = stored?.find(({ name }) => name === entry.name);
    return !latest || isDefinitionOf(latest, entry);
  }

  async #enqueue(ticks: readonly DraftedState[]): Promise<void> {
    const results = await this.#queue.schedules.storeTicks(ticks.map(({ drafted }) => drafted));
    ticks.forEach(({ state, drafted }, index) => {
      const result = results[index];
      const { key, scheduled } = drafted.draft.job;
      if (result !== "busy") state.missed = 0;
      state.paused = result === "paused" ? scheduled : 0;
      if (result === "stored" || result === "done") state.done = scheduled;
      if (result === "stored") this.#logger.debug({ job: key, scheduled }, `Scheduled ${key}`);
      if (result === "other_queue") {
        state.done = scheduled;
        this.#logOnce(state, result, () =>
          this.#logger.warn(
            { job: key, task: drafted.tick.task },
            "this scheduled task does not run: another queue in this database uses its key. Give it another name",
          ),
        );
      }
    });
  }

  /**
   * Runs `work` for one entry: its failure does not stop the other entries. Returns null on failure, and logs a failure
   * once until it changes.
   */
  async #isolate<T>(state: ScheduleState, work: () => Promise<T>): Promise<T | null>;
  #isolate<T>(state: ScheduleState, work: () => T): T | null;
  #isolate<T>(state: ScheduleState, work: () => T | Promise<T>): T | null | Promise<T | null> {
    const failed = (error: unknown) => {
      this.#logOnce(state, String(error), () =>
        this.#logger.error(
          { ...describe(error), schedule: state.entry.name },
          "a scheduled task could not be enqueued",
        ),
      );
      return null;
    };
    try {
      const result = work();
      return result instanceof Promise ? result.catch(failed) : result;
    } catch (error) {
      return failed(error);
    }
  }

  /** Calls `log`, unless the same problem of this entry was logged last. */
  #logOnce(state: ScheduleState, problem: string, log: () => void): void {
    if (state.lastLogged === problem) return;
    state.lastLogged = problem;
    log();
  }

  /** The database's clock, epoch s. */
  #now(): number {
    return this.#queue.broker.now() / 1_000;
  }
}
