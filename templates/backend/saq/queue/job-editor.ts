/** Changes of single jobs by hand. Each change is decided under the row's lock, and counted only if it was made. */
import type { Broker } from "../broker.js";
import { onlyJobOptions } from "../config/index.js";
import { isLarger, tooLarge } from "../core/byte-size.js";
import type { TerminalStatus } from "../core/job.js";
import { jsonText } from "../core/json-text.js";
import { omitUndefined } from "../core/omit-undefined.js";
import { read } from "../core/stored-job.js";
import {
  type AbortAnswer,
  abortJob,
  type DeleteAnswer,
  deleteJob,
  type FinishAnswer,
  finishJob,
  type JobUpdate,
  type RetryAnswer,
  type RunNowAnswer,
  retryJob,
  runJobNow,
  type UpdateAnswer,
  updateJob,
} from "../core/transitions.js";
import { InvalidJobError } from "../errors.js";
import type { EnqueuedJob } from "./batch.js";
import type { QueueCounters } from "./types.js";

const counterOf = { complete: "complete", failed: "failed", aborted: "aborted" } as const;

export class JobEditor {
  constructor(
    private readonly broker: Broker,
    private readonly failedTtl: number,
    private readonly maxBytes: number,
    private readonly counters: QueueCounters,
  ) {}

  async abort(key: string, error: string): Promise<AbortAnswer | null> {
    checkJson(`abort("${key}"): error`, error, this.maxBytes);
    const answer = await this.broker.updateLocked(key, (row) =>
      abortJob(row, error, this.broker.now(), this.failedTtl),
    );
    // A running job is counted by its worker when it has ended.
    if (answer === "aborted") this.counters.aborted++;
    return answer;
  }

  /** Aborts a job with the error `cancelled`, unless its key belongs to a later job now. */
  async cancel({ key, queued }: EnqueuedJob): Promise<void> {
    const answer = await this.broker.updateLocked(key, (row) =>
      read(row)?.queued === queued
        ? abortJob(row, "cancelled", this.broker.now(), this.failedTtl)
        : { change: null, answer: null },
    );
    if (answer === "aborted") this.counters.aborted++;
  }

  async retry(key: string, error: string, resetAttempts: boolean): Promise<RetryAnswer | null> {
    checkJson(`retry("${key}"): error`, error, this.maxBytes);
    const answer = await this.broker.updateLocked(key, (row) =>
      retryJob(row, error, this.broker.now(), resetAttempts),
    );
    if (answer === "queued") this.counters.retried++;
    return answer;
  }

  async finish(
    key: string,
    status: TerminalStatus,
    outcome: { result?: unknown; error?: string | null },
  ): Promise<FinishAnswer | null> {
    if (!Object.hasOwn(counterOf, status)) {
      throw new InvalidJobError(`finish takes "complete", "failed" or "aborted", got ${jsonText(status)}`);
    }
    checkJson(`finish("${key}"): result`, outcome.result ?? null, this.maxBytes);
    checkJson(`finish("${key}"): error`, outcome.error ?? null, this.maxBytes);
    const answer = await this.broker.updateLocked(key, (row) =>
      finishJob(row, status, outcome, {
        nowMs: this.broker.now(),
        failedTtl: this.failedTtl,
        maxBytes: this.maxBytes,
      }),
    );
    if (answer === "finished") this.counters[counterOf[status]]++;
    return answer;
  }

  delete(key: string): Promise<DeleteAnswer | null> {
    return this.broker.updateLocked(key, deleteJob);
  }

  runNow(key: string): Promise<RunNowAnswer | null> {
    return this.broker.updateLocked(key, runJobNow);
  }

  async update(key: string, change: JobUpdate): Promise<UpdateAnswer | null> {
    const update: JobUpdate = omitUndefined(change);
    checkUpdate(`update("${key}")`, update, this.maxBytes);
    return this.broker.updateLocked(key, (row) => updateJob(row, update, this.broker.now(), this.maxBytes));
  }
}

function checkUpdate(at: string, { progress, meta, ...options }: JobUpdate, maxBytes: number): void {
  if (progress !== undefined && !(typeof progress === "number" && progress >= 0 && progress <= 1)) {
    throw new InvalidJobError(`${at}: progress must be a number of 0 to 1, got ${String(progress)}`);
  }
  if (meta !== undefined && (typeof meta !== "object" || meta === null || Array.isArray(meta))) {
    throw new InvalidJobError(`${at}: meta must be an object, got ${jsonText(meta)}`);
  }
  checkJson(`${at}: meta`, meta ?? null, maxBytes);
  onlyJobOptions(at, options, InvalidJobError, ["progress", "meta"]);
}

export function checkJson(part: string, value: unknown, maxBytes: number): void {
  let reason: string;
  try {
    const text = JSON.stringify(value);
    if (text !== undefined && !isLarger(text, maxBytes)) return;
    if (text !== undefined)
      throw new InvalidJobError(`${tooLarge(part, text, maxBytes)}; nothing was changed`);
    reason = `a ${typeof value} has no JSON form`;
  } catch (error) {
    if (error instanceof InvalidJobError) throw error;
    reason = (error as Error).message;
  }
  throw new InvalidJobError(`${part} cannot be written as JSON: ${reason}; nothing was changed`);
}
