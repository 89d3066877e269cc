/** Results of jobs for callers who wait for them: `apply` and `map`, and what the end of a job means to a caller. */

import type { JobFields, Status } from "../core/job.js";
import type { StoredJob } from "../core/stored-job.js";
import { read } from "../core/stored-job.js";
import { InvalidJobError, JobGoneError, PoisonDocumentError, SaqError } from "../errors.js";
import type { ApplyOptions, EnqueueOptions } from "../tasks/task.js";
import type { EnqueuePipeline, EnqueueRequest, Stored } from "./enqueue-pipeline.js";
import type { Job } from "./job-handle.js";
import type { AwaitedEnd, JobWaiter } from "./job-waiter.js";

/** A job that was awaited failed or was aborted. Thrown by `apply` and `map`. Its code is `job_failed`. */
export class JobError extends SaqError {
  /** That job; its `error` says why. */
  readonly job: Job;

  constructor(job: Job) {
    super(
      "job_failed",
      `Job ${job.id} ${job.status}\n\nThe above job ended with the following error:\n\n` +
        (job.error ?? "(none was given)"),
    );
    this.job = job;
  }
}

/** Options of `map`. Those of jobs apply to each item, `waitTimeout` (s) and `signal` to the whole wait. */
export type MapOptions<Payload> = ApplyOptions & {
  /** Returns options of one item; they override the common options. A `key` belongs here. @defaultValue none */
  each?: (payload: Payload, index: number) => Omit<EnqueueOptions, "client">;
  /** Errors of jobs are put into the list in place of results. @defaultValue false */
  returnExceptions?: boolean;
};

/** Options of `listen`. */
export interface ListenOptions {
  /** Timeout of the wait, s; 0 and null: no limit. @defaultValue 10 */
  timeout?: number | null;
  /** Interval between two reads if there is no push, s. @defaultValue 0.5 */
  pollInterval?: number;
}

/** How long to keep a result that its job would delete at once, if the wait has no limit: SAQ's default, s. */
const defaultResultTtl = 600;
/** Minimum time to fetch a result, s. */
const minResultTtl = 60;

/** The result of a job that this process enqueued. It was sent with the job's end, so that the row need not be read. */
interface SentResult {
  sentResult: unknown;
}

export class Results {
  constructor(
    private readonly queueName: string,
    private readonly pipeline: EnqueuePipeline,
    private readonly waiter: JobWaiter,
    private readonly toJob: (fields: JobFields) => Job,
  ) {}

  async apply(task: string, payload: unknown, applyOptions: ApplyOptions = {}): Promise<unknown> {
    const { waitTimeout, signal, options } = splitOptions(`apply("${task}")`, applyOptions);
    await this.waiter.subscribe();
    signal?.throwIfAborted();
    const request = { task, payload, options, ...this.#awaitedFields(waitTimeout) };
    const wait = this.#waitForEnd(await this.pipeline.enqueue(request), waitTimeout);
    try {
      return this.#resultOf(await unlessAborted(signal, wait.end), task);
    } finally {
      wait.stop();
    }
  }

  async map(
    task: string,
    payloads: readonly unknown[],
    mapOptions: MapOptions<unknown> = {},
  ): Promise<unknown[]> {
    const at = `map("${task}")`;
    const { each, returnExceptions = false, ...common } = mapOptions;
    const { waitTimeout, signal, options } = splitOptions(at, common);
    const requests = payloads.map((payload, index): EnqueueRequest => {
      const { options: itemOptions } = splitOptions(at, each?.(payload, index) ?? {});
      return { task, payload, options: { ...options, ...itemOptions } };
    });
    checkKeys(at, requests);
    if (requests.length === 0) return [];
    await this.waiter.subscribe();
    signal?.throwIfAborted();
    const awaitedFields = this.#awaitedFields(waitTimeout);
    const stored = await this.pipeline.enqueueMany(
      requests.map((request) => ({ ...request, ...awaitedFields })),
    );
    const waits = stored.map((job) => this.#waitForEnd(job, waitTimeout));
    const results = waits.map(async ({ end }) => this.#resultOf(await end, task));
    try {
      const all = Promise.all(returnExceptions ? results.map((result) => result.catch(asListItem)) : results);
      return await unlessAborted(signal, all);
    } finally {
      for (const wait of waits) wait.stop();
    }
  }

  /** Returns the fields of a job after its end. `timeout` in s; 0 = no limit. */
  async waitForEnd(key: string, timeout: number): Promise<JobFields> {
    checkTimeout("refresh: until", timeout);
    await this.waiter.subscribe();
    return readEnd(await this.waiter.waitForEnd(key, { timeout, readNow: true }).end);
  }

  async listen(
    keys: readonly string[],
    callback: (key: string, status: Status) => unknown,
    { timeout = 10, pollInterval = 0.5 }: ListenOptions = {},
  ): Promise<void> {
    checkTimeout("listen: timeout", timeout);
    // A key that is no text would fail the statement that reads the jobs of all waits.
    if (!Array.isArray(keys) || keys.some((key) => typeof key !== "string")) {
      throw new InvalidJobError(`listen: keys must be an array of texts, got ${JSON.stringify(keys)}`);
    }
    if (!(typeof pollInterval === "number" && pollInterval > 0)) {
      throw new InvalidJobError(`listen: pollInterval must be seconds > 0, got ${String(pollInterval)}`);
    }
    await this.waiter.subscribe();
    for await (const rows of this.waiter.watch(keys, { timeout, interval: pollInterval })) {
      for (const row of rows) if (row && (await callback(row.key, row.status))) return;
    }
  }

  /** Waits for the job that was stored, or for the job that already has its key. */
  #waitForEnd(
    { fields: { key }, outcome }: Stored,
    timeout: number | null,
  ): AwaitedEnd<StoredJob | SentResult> {
    if (outcome.stored) return this.waiter.waitForEnd(key, { timeout, readNow: false }, parseSentResult);
    if (outcome.reason !== "other_queue") return this.waiter.waitForEnd(key, { timeout, readNow: true });
    const end = Promise.reject(
      new SaqError(
        "other_queue",
        `Job key ${JSON.stringify(key)} belongs to a job of another queue, so queue "${this.queueName}" cannot wait ` +
          "for it; keys are unique per table, so choose another key",
      ),
    );
    return { end, stop: () => {} };
  }

  #awaitedFields(timeout: number | null): Pick<EnqueueRequest, "awaited" | "replaceNegativeTtl"> {
    return { awaited: { replyTo: this.waiter.replyAddress }, replaceNegativeTtl: resultTtl(timeout) };
  }

  #resultOf(row: StoredJob | SentResult, task: string): unknown {
    if ("sentResult" in row) return row.sentResult;
    const fields = readEnd(row);
    if (fields.function !== task) {
      throw new InvalidJobError(
        `Job ${row.key} is a job of task "${fields.function}", not "${task}", so its result is not returned here; ` +
          "use different keys for different tasks",
      );
    }
    if (fields.status === "complete") return fields.result;
    throw new JobError(this.toJob(fields));
  }
}

/** Returns null if the text is not JSON: any user of the database may send a notification. */
function parseSentResult(text: string): SentResult | null {
  try {
    return { sentResult: JSON.parse(text) as unknown };
  } catch {
    return null;
  }
}

/** Returns the reason why the document of a row cannot be shown. */
export const unreadReason = ({ unreadBytes }: StoredJob): string =>
  unreadBytes === undefined
    ? "The stored document is not a SAQ job; it is kept unchanged"
    : `The stored document has ${unreadBytes.toLocaleString("en-US")} bytes: too large to be read, or to be read ` +
      "together with the other jobs of a list; it is kept unchanged. Read the job alone, or raise " +
      "maxBytes of the queue";

/** Returns the fields of a row. @throws PoisonDocumentError if the row's document cannot be read */
export function readEnd(row: StoredJob): JobFields {
  const fields = read(row);
  if (fields) return fields;
  throw new PoisonDocumentError(
    row.unreadBytes === undefined
      ? `Job ${row.key} exists (${row.status}), but its stored document is not a SAQ job of this queue; ` +
          "the document is kept unchanged"
      : `Job ${row.key} exists (${row.status}). ${unreadReason(row)}`,
  );
}

/** Separates the options of the wait from those of the job. @throws InvalidJobError for a bad time, or a `client` */
function splitOptions(at: string, { waitTimeout = null, signal, ...options }: ApplyOptions) {
  checkTimeout(`${at}: waitTimeout`, waitTimeout);
  if ("client" in options) {
    throw new InvalidJobError(
      `${at}: client cannot be combined with waiting, because the job becomes visible to workers only when that ` +
        "transaction commits; call enqueue with the client, and await job.refresh(0) after the commit",
    );
  }
  return { waitTimeout, signal, options };
}

/** @throws InvalidJobError if it is neither null nor seconds >= 0 */
function checkTimeout(at: string, seconds: number | null): void {
  if (seconds === null || (typeof seconds === "number" && seconds >= 0)) return;
  throw new InvalidJobError(
    `${at} must be null or seconds >= 0 (0 and null: no limit), got ${String(seconds)}`,
  );
}

/** Returns how long to keep a result after the job's end, s: as long as the caller may wait, and at least 60 s. */
const resultTtl = (waitTimeout: number | null): number =>
  Math.max(Math.ceil(waitTimeout || defaultResultTtl), minResultTtl);

/** Refuses items with the same key: they would be one job, and one result in two places. */
function checkKeys(at: string, requests: readonly EnqueueRequest[]): void {
  const keys = requests.flatMap(({ options: { key } }) => (key === undefined ? [] : [key]));
  const seen = new Set<string>();
  const duplicate = keys.find((key) => seen.has(key) || !seen.add(key));
  if (duplicate === undefined) return;
  throw new InvalidJobError(
    `${at}: key ${JSON.stringify(duplicate)} belongs to more than one item; ` +
      "give each item a key of its own: { each: (payload) => ({ key: ... }) }",
  );
}

/** The waits under each signal. One listener serves all of them, because Node warns of more than ten on one signal. */
const waitsBySignal = new WeakMap<AbortSignal, Set<() => void>>();

/** Calls `abort` when the signal fires. Returns a function that stops this. */
function onAbort(signal: AbortSignal, abort: () => void): () => void {
  const known = waitsBySignal.get(signal);
  const waits = known ?? new Set<() => void>();
  waits.add(abort);
  if (!known) {
    const fire = () => {
      for (const wait of waits) wait();
    };
    waitsBySignal.set(signal, waits);
    signal.addEventListener("abort", fire, { once: true });
  }
  return () => waits.delete(abort);
}

/** Rejects with the signal's reason if the signal fires first. */
async function unlessAborted<T>(signal: AbortSignal | undefined, work: Promise<T>): Promise<T> {
  if (!signal) return work;
  let stop: () => void = () => {};
  const aborted = new Promise<never>((_, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    else stop = onAbort(signal, abort);
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    stop();
  }
}

/** Returns an error that `returnExceptions` puts into the list. Other errors, such as a timeout, concern all items. */
function asListItem(error: unknown): unknown {
  if (error instanceof JobError || error instanceof JobGoneError) return error;
  throw error;
}
