/**
 * Gives back jobs that a worker cannot run: their previous run has not ended in this worker, this worker does not have
 * their task, or they are paused.
 */
import type { QueueConfig } from "../../config/index.js";
import { increment } from "../../core/job-meta.js";
import type { MetaPatch } from "../../core/wire.js";
import type { Attempt } from "../attempt/attempt.js";
import type { Report } from "./report.js";
import { lastFailure, release, type SettlementRules } from "./settlement.js";
import type { Settler } from "./settler.js";

/** A job fails when it is refused this often, because its previous run in this worker does not end. */
const maxOverdueRefusals = 5;
/**
 * Maximum number of times that a job is given back because no worker has its task. Together they take five minutes, as
 * long as a deployment.
 */
const maxUnknownTaskRefusals = 60;
/** Delay of a job whose task this worker does not have, s. */
const unknownTaskDelay = 5;
/** Delay of a paused job that was claimed again although claims leave out paused jobs, s. */
const pausedDelay = 5;
/** Number of refused paused jobs that are remembered. */
const maxRememberedPaused = 10_000;

export interface RefusalsOptions {
  config: QueueConfig;
  settler: Settler;
  report: Report;
  rules: () => SettlementRules;
}

export class Refusals {
  readonly #options: RefusalsOptions;
  /**
   * Keys of jobs whose task still runs after its hard deadline, each with the number of refusals since then. Such a job
   * must not run a second time beside that task.
   */
  readonly #overdue = new Map<string, number>();
  /** Keys of paused jobs that were refused since the pauses changed. */
  readonly #paused = new Set<string>();

  constructor(options: RefusalsOptions) {
    this.#options = options;
  }

  /** Keys of the jobs whose task still runs after its hard deadline. */
  get overdueKeys(): string[] {
    return [...this.#overdue.keys()];
  }

  /** Records that the task still runs although its attempt has ended. */
  addOverdue(attempt: Attempt): void {
    const { key } = attempt.fields;
    this.#options.report.overdue(attempt);
    this.#overdue.set(key, 0);
    void attempt.taskEnded?.then(() => this.#overdue.delete(key));
  }

  isOverdue(key: string): boolean {
    return this.#overdue.has(key);
  }

  /**
   * Refuses a job whose previous run has not ended in this worker: the task did not end at its hard deadline, or
   * another worker took the job over and gave it up again. Two runs of one key must not run here at a time, so the job
   * is given back: it is due again after a second, here or for another worker. If there is no other worker and the task
   * never ends, that would repeat for ever, so the job fails after some refusals.
   */
  refuseOverdue(attempt: Attempt): void {
    const { key } = attempt.fields;
    const refusals = (this.#overdue.get(key) ?? 0) + 1;
    if (this.#overdue.has(key)) this.#overdue.set(key, refusals);
    if (refusals < maxOverdueRefusals) {
      if (refusals === 1) this.#options.report.refused(attempt);
      this.#giveBack(attempt, 1);
      return;
    }
    const error = new Error(
      "the previous run of this job in this worker ignores its signal and has not ended",
    );
    this.#fail(attempt, error);
  }

  /**
   * Gives back a job whose task this worker does not have, because another worker may have it. The count is kept in the
   * job's document, so that all workers count together.
   */
  refuseUnknown(attempt: Attempt): void {
    const refusals = increment(attempt.fields.meta.unknownTask);
    if (refusals > maxUnknownTaskRefusals) {
      this.#fail(attempt, unknownTaskError(this.#options.config, attempt.fields.function));
      return;
    }
    if (refusals === 1) this.#options.report.unknownTask(attempt, unknownTaskDelay);
    this.#giveBack(attempt, unknownTaskDelay, { unknownTask: refusals });
  }

  /**
   * Gives back a paused job. It was claimed before this worker knew of the pause, so it returns to its previous
   * position. If that happens again, storage cannot read which task the job has: then the job waits for some seconds,
   * so that it is not claimed all the time.
   */
  refusePaused(attempt: Attempt): void {
    const { key } = attempt.fields;
    if (this.#paused.has(key)) {
      this.#giveBack(attempt, pausedDelay);
      return;
    }
    if (this.#paused.size < maxRememberedPaused) this.#paused.add(key);
    this.#options.settler.settle(attempt, release(attempt));
  }

  /** Called when the pauses have changed. */
  forgetPaused(): void {
    this.#paused.clear();
  }

  #giveBack(attempt: Attempt, seconds: number, metaPatch?: MetaPatch): void {
    const { settler, rules } = this.#options;
    const scheduled = Math.ceil(rules().nowMs / 1_000) + seconds;
    settler.settle(attempt, { ...release(attempt, metaPatch), scheduled });
  }

  #fail(attempt: Attempt, error: Error): void {
    const { settler, rules } = this.#options;
    settler.settle(attempt, lastFailure(attempt, error, rules()), { kind: "threw", error });
  }
}

/** The error of a job whose task is not among the queue's tasks. */
export const unknownTaskError = ({ tasks }: QueueConfig, name: string): Error =>
  new Error(`Unknown task "${name}" (registered: ${Object.keys(tasks).join(", ")})`);
