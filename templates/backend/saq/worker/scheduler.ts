/**
 * Stores the next tick of every recurring task ahead of its time, as SAQ does (C-3): a job that waits for its second.
 * All workers do so, and storage lets one of them through (V-5.2, saq_cron). What is known to be stored is not tried
 * again (C-8), so that between two ticks nothing is written, and while a run goes on only its row is looked at. Whether
 * it still holds is looked up now and then: a pause that is over, or a start of an older worker, has taken a tick back.
 *
 * The rounds are half a second away from the ticks: two workers whose clocks differ a little look for the same one, and
 * an every-second entry whose run is short has ended by then.
 */
import type { StoredJob } from "../broker.js";
import { type CronEntry, cronKey } from "../config/index.js";
import { isTerminal } from "../job.js";
import { describe, type Logger } from "../logger.js";
import type { Queue } from "../queue/queue.js";
import { definitionOf, takeBack } from "../queue/schedules.js";
import type { ScheduleRow, Tick } from "../schedule-store.js";
import { type Course, endOf, isDefinition, isOpen, mayWait } from "./course.js";
import type { Chore } from "./upkeep.js";

/** How often it is looked up whether what is known to be stored still holds, s. */
const reviewEvery = 10;

/** The chore of a worker whose queue has scheduled tasks. */
export function schedule(queue: Queue, logger: Logger): Chore[] {
  const { config, broker } = queue;
  if (!config.scheduledTasks) return [];
  const scheduler = new Scheduler(queue, config.scheduledTasks, logger);
  return [
    {
      name: "cron",
      every: config.timers.schedule,
      alignedTo: () => broker.now() - 500,
      atOnce: true,
      run: () => scheduler.round(),
    },
  ];
}

export class Scheduler {
  readonly #queue: Queue;
  readonly #logger: Logger;
  readonly #courses: readonly Course[];
  #registered = false;
  /** Epoch s. */
  #reviewed = 0;

  constructor(queue: Queue, entries: readonly CronEntry[], logger: Logger) {
    this.#queue = queue;
    this.#logger = logger;
    this.#courses = entries.map((entry) => ({
      entry,
      next: 0,
      since: Number.POSITIVE_INFINITY,
      done: 0,
      seen: 0,
      said: "",
    }));
  }

  async round(): Promise<void> {
    if (!this.#registered) await this.#register();
    const now = this.#now();
    await this.#review(now);
    const open = this.#courses.filter((course) => this.#alone(course, () => isOpen(course, now)) === true);
    if (open.length > 0) await this.#store(open.map((course) => ({ course, tick: course.next })));
  }

  /** In this process, what the configuration says is new: makes it known, takes back what is left of other ones. */
  async #register(): Promise<void> {
    const { broker } = this.#queue;
    const definitions = this.#courses.map(({ entry }) => definitionOf(entry));
    const rows = await broker.schedules.register(definitions);
    await this.#clear();
    await this.#makeUp(rows ?? []);
    this.#registered = true;
  }

  /** Waiting ticks that no entry has (D-57): of an entry that is gone, or, with keys of their own, at another time. */
  async #clear(): Promise<void> {
    const left = (await this.#queue.broker.schedules.waiting()).filter(
      (key) => !this.#courses.some(({ entry }) => mayWait(entry, key)),
    );
    const foreign: string[] = [];
    for (const key of left) if ((await takeBack(this.#queue, key)) === "foreign") foreign.push(key);
    if (foreign.length > 0) {
      this.#logger.warn(
        { jobs: foreign.slice(0, 20), count: foreign.length },
        "cron jobs without a scheduled task here wait for their time; another program made them",
      );
    }
  }

  /**
   * Ticks that were taken back since they were stored: by a pause that is over, which storage remembers, or by the start
   * of a worker that does not have the entry. The latter are stored again only when their time has nearly come, so that
   * those of a removed entry are not, unless a worker that has it still runs then.
   */
  async #review(now: number): Promise<void> {
    const near = now + 2 * this.#queue.config.timers.schedule;
    const known = this.#courses.filter(({ next, done }) => next === done && next > now);
    const isTime = Math.abs(now - this.#reviewed) >= reviewEvery || known.some(({ next }) => next <= near);
    if (known.length === 0 || !isTime) return;
    const rows = await this.#queue.broker.schedules.list();
    this.#reviewed = now;
    for (const course of known) {
      const row = rows?.find(({ name }) => name === course.entry.name);
      const isOpenAgain = row
        ? !row.paused && row.tick < course.next && isDefinition(row, course.entry)
        : course.next <= near;
      if (isOpenAgain) course.done = 0;
    }
  }

  /** One run at the start for ticks that were missed, where the entry asks for it. */
  async #makeUp(rows: readonly ScheduleRow[]): Promise<void> {
    const now = this.#now();
    const missed = this.#courses.flatMap((course) => {
      const { misfire, name, cron } = course.entry;
      const row = rows.find((candidate) => candidate.name === name);
      const tick = misfire === "once" && row && !row.paused ? cron.previous(now) : null;
      return row && tick !== null && tick > row.tick ? [{ course, tick }] : [];
    });
    if (missed.length > 0) await this.#store(missed);
  }

  async #store(wanted: readonly { course: Course; tick: number }[]): Promise<void> {
    const rows = await this.#look(wanted);
    const ticks: { course: Course; tick: Tick }[] = [];
    for (const { course, tick } of wanted) {
      const made = await this.#alone(course, () => this.#tick(course, tick, rows));
      if (made) ticks.push({ course, tick: made });
    }
    if (ticks.length === 0) return;
    try {
      await this.#enqueue(ticks);
    } catch (error) {
      // One entry's key may be what is wrong, held by somebody's transaction: the others go without it (D-58).
      if (ticks.length === 1) throw error;
      for (const one of ticks) await this.#alone(one.course, () => this.#enqueue([one]));
    }
  }

  /** The rows that the ticks would take, and those of the last runs, by key. */
  async #look(wanted: readonly { course: Course; tick: number }[]): Promise<Map<string, StoredJob>> {
    const keys = wanted.flatMap(({ course: { entry, seen }, tick }) => [
      cronKey(entry, tick),
      ...(entry.overlap === "allow" && seen > 0 ? [cronKey(entry, seen)] : []),
    ]);
    const rows = await this.#queue.broker.jobs(keys);
    return new Map(rows.flatMap((row) => (row ? [[row.key, row] as const] : [])));
  }

  /** Null when there is nothing to store, now or at all. */
  async #tick(course: Course, second: number, rows: ReadonlyMap<string, StoredJob>): Promise<Tick | null> {
    const { entry } = course;
    const key = cronKey(entry, second);
    const row = rows.get(key);
    if (row && !isTerminal(row.status)) {
      if (row.status === "queued" && row.scheduled === second) course.done = second;
      // Its time has not come, and between now and our tick the entry has none.
      const isOther =
        row.status === "queued" && row.scheduled !== second && row.scheduled > Math.min(second, this.#now());
      if (!isOther || !(await this.#giveWay(course, row))) return null;
    } else if (
      row &&
      row.scheduled >= second &&
      !(row.scheduled > second && (await this.#freeAborted(course, row, second)))
    ) {
      // Run, or aborted before its time: a tick is not enqueued again (D-31).
      course.done = second;
      return null;
    }
    const last = row ?? rows.get(cronKey(entry, course.seen));
    return {
      ...definitionOf(entry),
      job: await this.#queue.schedules.tickOf(entry, second),
      seen: course.seen,
      lastRun: last ? endOf(last) : null,
    };
  }

  /**
   * The waiting job was made for another time (D-57): by an older definition of this entry, whose workers may still be
   * there, or by another program. The definition that was registered last decides. True when the key is free now.
   */
  async #giveWay(course: Course, row: StoredJob): Promise<boolean> {
    const { cron } = course.entry;
    if (!(await this.#isLatest(course))) return false;
    const taken = await takeBack(this.#queue, row.key, (clock) => cron.next(clock) !== row.scheduled);
    if (taken === "foreign") {
      this.#say(course, `waits ${row.scheduled}`, () =>
        this.#logger.warn(
          { job: row.key, scheduled: row.scheduled, cron: cron.text },
          "another program's job holds this scheduled task's key until its own time",
        ),
      );
    }
    return taken === true;
  }

  /** A later tick that an older definition had stored was aborted: it stands for itself, not for those before it (D-57). */
  async #freeAborted(course: Course, { key }: StoredJob, second: number): Promise<boolean> {
    if (!(await this.#isLatest(course))) return false;
    const freed = await this.#queue.broker.change(key, ({ status, scheduled }, clock) =>
      status === "aborted" && scheduled > Math.max(second, clock / 1_000)
        ? { change: { status, patch: null, removed: [], scheduled: 0 }, answer: true }
        : { change: null, answer: false },
    );
    return freed === true;
  }

  /** No other definition of the entry was registered since; where nothing is remembered, each one's own counts. */
  async #isLatest({ entry }: Course): Promise<boolean> {
    const remembered = await this.#queue.broker.schedules.list();
    const latest = remembered?.find(({ name }) => name === entry.name);
    return !latest || isDefinition(latest, entry);
  }

  async #enqueue(ticks: readonly { course: Course; tick: Tick }[]): Promise<void> {
    const answers = await this.#queue.broker.schedules.enqueue(ticks.map(({ tick }) => tick));
    ticks.forEach(({ course, tick }, index) => {
      const answer = answers[index];
      const { key, scheduled } = tick.job;
      if (answer === "stored" || answer === "done") course.done = scheduled;
      if (answer === "stored") this.#logger.debug({ job: key, scheduled }, `Scheduled ${key}`);
      if (answer === "other_queue") {
        course.done = scheduled;
        this.#say(course, answer, () =>
          this.#logger.warn(
            { job: key, task: tick.task },
            "this scheduled task does not run: another queue in this database holds its key; give it a name of its own",
          ),
        );
      }
    });
  }

  /** One entry's failure is its own (D-58). Said once until it changes. */
  async #alone<T>(course: Course, work: () => Promise<T>): Promise<T | null>;
  #alone<T>(course: Course, work: () => T): T | null;
  #alone<T>(course: Course, work: () => T | Promise<T>): T | null | Promise<T | null> {
    const failed = (error: unknown) => {
      this.#say(course, String(error), () =>
        this.#logger.error(
          { ...describe(error), schedule: course.entry.name },
          "a scheduled task could not be enqueued",
        ),
      );
      return null;
    };
    try {
      const answer = work();
      return answer instanceof Promise ? answer.catch(failed) : answer;
    } catch (error) {
      return failed(error);
    }
  }

  #say(course: Course, what: string, say: () => void): void {
    if (course.said === what) return;
    course.said = what;
    say();
  }

  /** The database's clock, epoch s. */
  #now(): number {
    return this.#queue.broker.now() / 1_000;
  }
}
