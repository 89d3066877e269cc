/** The recurring tasks of a queue, to look at and to control: `queue.schedules`. */
import type { Broker } from "../broker.js";
import { type CronEntry, cronKey, type QueueConfig } from "../config/index.js";
import { isTerminal, type JobFields, type Status } from "../core/job.js";
import { hasRun } from "../core/job-meta.js";
import type { LastRun, ScheduleDefinition, Tick, TickAnswer } from "../core/schedule-store.js";
import type { StoredJob } from "../core/stored-job.js";
import { read } from "../core/stored-job.js";
import { SaqError } from "../errors.js";
import type { EnqueueOptions } from "../tasks/task.js";
import type { Draft } from "./draft.js";
import type { EnqueueObserver } from "./enqueue-observer.js";
import type { EnqueueRequest } from "./enqueue-pipeline.js";
import type { Job } from "./job-handle.js";

/** One recurring task, as `schedules.list` returns it. */
export interface ScheduleInfo extends ScheduleDefinition {
  misfire: "skip" | "once";
  /** True from `pause` until `resume`. */
  paused: boolean;
  /** The next tick, epoch s; null while paused. */
  nextRun: number | null;
  /** The last run, which may still be under way. Null before the first run. */
  lastRun: ScheduleRun | null;
}

/** One run of a recurring task. Times are epoch ms; 0 = not yet. */
export interface ScheduleRun {
  /** Key of the run's job. The job of the next tick may have the same key. */
  key: string;
  status: Status;
  started: number;
  completed: number;
  error: string | null;
}

/** What the schedules need from their queue. */
export interface ScheduleHost {
  readonly config: QueueConfig;
  readonly broker: Broker;
  readonly observer: EnqueueObserver;
  draft(request: EnqueueRequest): Promise<Draft>;
  /** Returns the draft of the same job with the trace of the request. */
  traced(draft: Draft, request: EnqueueRequest): Draft;
  /** Stores a job under a generated key. */
  enqueue(task: string, payload: unknown, options: Omit<EnqueueOptions, "key">): Promise<Job>;
}

/** A tick that is about to be stored, with the request and the draft of its job. */
export interface DraftedTick {
  tick: Omit<Tick, "job">;
  request: EnqueueRequest;
  draft: Draft;
}

/** How long to keep a run of a cron task with a negative ttl, s. Its row tells other workers that this tick was run. */
const minTickTtl = 10;

/** The recurring tasks of a queue: `queue.schedules`. */
export class Schedules {
  readonly #host: ScheduleHost;

  constructor(host: ScheduleHost) {
    this.#host = host;
  }

  /**
   * Returns every entry of the configuration with its next and last run; an empty list if there is none.
   *
   * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `queue.connect` does
   * @example
   * for (const { name, nextRun } of await queue.schedules.list()) console.log(name, nextRun);
   */
  async list(): Promise<ScheduleInfo[]> {
    const { broker } = this.#host;
    const entries = this.#host.config.scheduledTasks ?? [];
    if (entries.length === 0) return [];
    await broker.connect();
    const stored = await broker.schedules.list();
    const now = broker.now() / 1_000;
    const keys = entries.map((entry) => cronKey(entry, entry.cron.previous(now) ?? 0));
    const rows = await broker.jobs(keys);
    return entries.map((entry, index) => {
      const { name, cron, misfire } = entry;
      const schedule = stored?.find((row) => row.name === name);
      const paused = schedule?.paused ?? false;
      return {
        ...definitionOf(entry),
        misfire,
        paused,
        nextRun: paused ? null : cron.next(now),
        lastRun: lastRunOf(rows[index] ?? null, schedule?.lastRun ?? null),
      };
    });
  }

  /**
   * Runs the task now, paused or not, as a job with a generated key. The next tick comes as usual, and may run beside
   * this job. Returns the job.
   *
   * @throws SaqError unknown_schedule if there is no entry with this name
   * @throws InvalidPayloadError (invalid_payload) if the task's schema refuses the entry's payload
   * @throws InvalidJobError (invalid_job) if the entry's payload or `meta` cannot be stored
   * @throws SaqError database_unavailable and others, as `queue.enqueue` does
   * @example
   * const job = await queue.schedules.run("nightlyCleanup");
   */
  async run(name: string): Promise<Job> {
    const { task, payload, options, meta } = this.#find(name);
    return this.#host.enqueue(task, payload, { ...options, meta: { ...meta, schedule: name } });
  }

  /**
   * Starts no tick of the entry until `resume`, on any worker and across restarts; the waiting tick is deleted. A run
   * that has started goes on. A tick that a Python worker stored stays as well, because Python does not know the pause.
   *
   * @throws SaqError unknown_schedule if there is no entry with this name
   * @throws SaqError config if the database role may neither create nor use the table saq_cron
   * @throws SaqError job_held if another transaction holds the waiting tick for longer than 5 s; later ticks are paused
   * @throws SaqError database_unavailable, queue_closed or schema_version, as `queue.connect` does
   * @example
   * await queue.schedules.pause("nightlyCleanup");
   */
  async pause(name: string): Promise<void> {
    const entry = this.#find(name);
    const { broker } = this.#host;
    await broker.schedules.setPaused(definitionOf(entry), true);
    const now = broker.now() / 1_000;
    const ticks = [entry.cron.previous(now) ?? 0, entry.cron.next(now) ?? 0];
    const keys = new Set(ticks.map((tick) => cronKey(entry, tick)));
    for (const key of keys) await deleteWaitingTick(this.#host, key);
  }

  /**
   * Starts ticks again, from the next one on. Ticks that the pause left out are not made up for.
   *
   * @throws SaqError unknown_schedule, config, database_unavailable, queue_closed or schema_version, as `pause` does
   * @example
   * await queue.schedules.resume("nightlyCleanup");
   */
  async resume(name: string): Promise<void> {
    await this.#host.broker.schedules.setPaused(definitionOf(this.#find(name)), false);
  }

  /**
   * Returns the request and the draft of the job of one tick (epoch s), for the worker that stores it. `meta.schedule`
   * marks it as made here.
   */
  async draftTick(entry: CronEntry, tick: number): Promise<Pick<DraftedTick, "request" | "draft">> {
    const { task, payload, options, meta, name } = entry;
    const request: EnqueueRequest = {
      task,
      payload,
      options: { ...options, key: cronKey(entry, tick), scheduled: tick, meta: { ...meta, schedule: name } },
      replaceNegativeTtl: minTickTtl,
    };
    return { request, draft: await this.#host.draft(request) };
  }

  /** Stores ticks, for the worker, in one call that observers see. Returns one answer per tick. */
  async storeTicks(ticks: readonly DraftedTick[]): Promise<TickAnswer[]> {
    const { broker, observer, traced } = this.#host;
    const store = async (requests: readonly EnqueueRequest[]) => {
      const jobs = ticks.map(({ tick, draft }, index) => {
        const { job } = traced(draft, requests[index] as EnqueueRequest);
        return { ...tick, job };
      });
      const answers = await broker.schedules.enqueue(jobs);
      return answers.map((answer, index) => ({ answer, key: String(jobs[index]?.job.key) }));
    };
    const requests = ticks.map(({ request }) => request);
    const stored = observer.isActive
      ? await observer.observe(requests, {
          store,
          published: ({ answer, key }) => ({ key, refused: answer === "stored" ? null : answer }),
          // A tick is stored when the previous one has passed, which may be a month before it runs.
          hasOwnTraces: true,
        })
      : await store(requests);
    return stored.map(({ answer }) => answer);
  }

  #find(name: string): CronEntry {
    const entries = this.#host.config.scheduledTasks ?? [];
    const entry = entries.find((candidate) => candidate.name === name);
    if (entry) return entry;
    const known = entries.map((candidate) => candidate.name).join(", ") || "none";
    throw new SaqError(
      "unknown_schedule",
      `Queue "${this.#host.config.name}" has no scheduled task "${name}" (known: ${known})`,
    );
  }
}

export const definitionOf = ({ name, task, cron, overlap }: CronEntry): ScheduleDefinition => ({
  name,
  task,
  cron: cron.text,
  timezone: cron.timezone,
  overlap,
});

/**
 * Deletes a tick that waits for its first start. Returns true if it was deleted, and `foreign` if another program made
 * it. Returns null if no such tick waits under the key, or if `shouldDelete` (called with the database's clock, epoch
 * s) returns false.
 */
export function deleteWaitingTick(
  { broker }: { readonly broker: Broker },
  key: string,
  shouldDelete: (clock: number) => boolean = () => true,
): Promise<true | "foreign" | null> {
  return broker.updateLocked<true | "foreign" | null>(key, (row, clock) => {
    const job = row.status === "queued" ? read(row) : null;
    if (!job || hasRun(job) || !shouldDelete(clock / 1_000)) return { change: null, answer: null };
    if (typeof job.meta.schedule !== "string") return { change: null, answer: "foreign" };
    return { change: { status: "aborted", patch: null, removed: [], keep: -1 }, answer: true };
  });
}

/**
 * Returns the last run from its row while the row exists, otherwise as it was recorded when the next tick took the row.
 * The row of a job that ended before it started counts only if no run was recorded.
 */
function lastRunOf(row: StoredJob | null, recorded: LastRun | null): ScheduleRun | null {
  const job = row && row.status !== "queued" ? read(row) : null;
  if (!row || !job || (isTerminal(row.status) && job.started === 0 && recorded)) return recorded;
  return runOf(row.key, row.status, job);
}

/** Returns the members of a run that are kept. */
export const runOf = <S extends Status>(
  key: string,
  status: S,
  { started, completed, error }: JobFields,
) => ({ key, status, started, completed, error });
