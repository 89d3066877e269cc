/** Jobs that a worker gives back instead of running them: their last run still goes on here, or their task is not here. */
import type { QueueConfig } from "../config/index.js";
import { oneMore } from "../transitions.js";
import type { MetaMarks } from "../wire.js";
import type { Attempt } from "./attempt.js";
import { lastFailure, type OutcomeRules, release } from "./outcome.js";
import type { Recorder } from "./recorder.js";
import type { Report } from "./report.js";

/** How often a job is given back because its last run here never ends, before it counts as failed. */
const mostForOverdue = 5;
/** How often because no worker has its task: five minutes, as long as a deployment takes. */
const mostForUnknown = 60;
/** Between two tries of a job whose task is not here, s. */
const unknownDelay = 5;

export interface RefusalsOptions {
  config: QueueConfig;
  recorder: Recorder;
  report: Report;
  rules: () => OutcomeRules;
}

export class Refusals {
  readonly #options: RefusalsOptions;
  /**
   * Tasks that outlived their deadline, by key, with how often their job came back meanwhile: it must not run a second
   * time beside them (D-46).
   */
  readonly #overdue = new Map<string, number>();

  constructor(options: RefusalsOptions) {
    this.#options = options;
  }

  /** Keys of the jobs whose task outlived its hard deadline and still goes on. */
  get overdueKeys(): string[] {
    return [...this.#overdue.keys()];
  }

  /** The task goes on although its attempt is over. */
  remember(attempt: Attempt): void {
    const { key } = attempt.fields;
    this.#options.report.overdue(attempt);
    this.#overdue.set(key, 0);
    void attempt.settled?.then(() => this.#overdue.delete(key));
  }

  isOverdue(key: string): boolean {
    return this.#overdue.has(key);
  }

  /**
   * The job came back while its last run still goes on in this process: taken over and given up elsewhere meanwhile, or
   * a task that outlived its deadline. Never two runs of one key here (D-46): back with it, for a second or for another
   * worker. Where there is no other and the task never ends, that would go on for ever.
   */
  refuseOverdue(attempt: Attempt): void {
    const { key } = attempt.fields;
    const refusals = (this.#overdue.get(key) ?? 0) + 1;
    if (this.#overdue.has(key)) this.#overdue.set(key, refusals);
    if (refusals < mostForOverdue) {
      if (refusals === 1) this.#options.report.refused(attempt);
      this.#giveBack(attempt, 1);
      return;
    }
    this.#fail(attempt, new Error("its last run in this worker still goes on and ignores its signal"));
  }

  /** Another worker may have the task (D-41). The count is the document's, so that all workers count together. */
  refuseUnknown(attempt: Attempt): void {
    const refusals = oneMore(attempt.fields.meta.unknownTask);
    if (refusals > mostForUnknown) {
      this.#fail(attempt, unknownTask(this.#options.config, attempt.fields.function));
      return;
    }
    if (refusals === 1) this.#options.report.unknown(attempt, unknownDelay);
    this.#giveBack(attempt, unknownDelay, { unknownTask: refusals });
  }

  #giveBack(attempt: Attempt, seconds: number, marks?: MetaMarks): void {
    const { recorder, rules } = this.#options;
    const scheduled = Math.ceil(rules().nowMs / 1_000) + seconds;
    recorder.settle(attempt, { ...release(attempt, marks), scheduled });
  }

  #fail(attempt: Attempt, error: Error): void {
    const { recorder, rules } = this.#options;
    recorder.settle(attempt, lastFailure(attempt, error, rules()), { kind: "threw", error });
  }
}

/** The error of a job whose task the queue does not have. */
export const unknownTask = ({ tasks }: QueueConfig, name: string): Error =>
  new Error(`Unknown task "${name}" (registered: ${Object.keys(tasks).join(", ")})`);
