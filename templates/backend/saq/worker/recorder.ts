/** Outcomes on their way into storage, and what follows when they have arrived: counting, a log line, hooks. */
import type { Broker, ClaimedJob, Settlement, SettleResult } from "../broker.js";
import type { Logger } from "../logger.js";
import { setAside } from "../transitions.js";
import { fieldsOfChange } from "../wire.js";
import type { Attempt } from "./attempt.js";
import type { AroundJobs } from "./hooks.js";
import type { AttemptEnd } from "./outcome.js";
import type { Report } from "./report.js";

/** Results that wait to be recorded before no more jobs are started. */
const mostUnsettled = 2_000;

export interface RecorderOptions {
  broker: Broker;
  report: Report;
  around: AroundJobs | null;
  logger: Logger;
  /** An outcome is stored. */
  stored: (attempt: Attempt, settlement: Settlement) => void;
  /** Jobs may be started again. */
  relieved: () => void;
}

export class Recorder {
  readonly #options: RecorderOptions;
  readonly #underWay = new Set<Promise<void>>();

  constructor(options: RecorderOptions) {
    this.#options = options;
  }

  get isCongested(): boolean {
    return this.#underWay.size > mostUnsettled;
  }

  /** Resolves when every outcome so far is recorded, and the hooks that follow have run. */
  async settled(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay);
  }

  /** `end` is left out for a job that never began here. */
  settle(attempt: Attempt, settlement: Settlement, end?: AttemptEnd): void {
    const { broker, report, stored, around } = this.#options;
    const settling = broker.settle(settlement).then(
      (result) => {
        stored(attempt, settlement);
        if (!end) return;
        report.settled(attempt, end, settlement.status, result);
        if (around) takeOver(attempt, settlement, result);
      },
      (error: unknown) => report.unsettled(attempt, settlement, error),
    );
    this.#track(around && end ? settling.then(() => around.ended(attempt)) : settling);
  }

  /** There is nothing to write: the job is somebody else's by now. */
  dropped(attempt: Attempt): void {
    const { report, around } = this.#options;
    report.lost(attempt);
    if (around) this.#track(around.ended(attempt));
  }

  /** The document of a claimed job cannot be read: failed, its bytes untouched. */
  setAside(claimed: ClaimedJob): void {
    const { broker, logger } = this.#options;
    const settled = broker
      .change(claimed.key, (row) => ({
        change: row.token === claimed.token ? setAside : null,
        answer: null,
      }))
      .catch((reason: unknown) =>
        logger.error({ err: reason, job: claimed.key }, "could not set a job aside"),
      );
    this.#track(settled.then(() => {}));
  }

  #track(settling: Promise<void>): void {
    this.#underWay.add(settling);
    void settling.finally(() => {
      this.#underWay.delete(settling);
      if (this.#underWay.size === mostUnsettled) this.#options.relieved();
    });
  }
}

/** Shows the hooks after a task the job as it is stored now. */
function takeOver({ fields, ownEnd }: Attempt, settlement: Settlement, result: SettleResult): void {
  const written = result === "applied" ? settlement : result === "finished" ? ownEnd?.settlement : null;
  if (written) {
    Object.assign(fields, fieldsOfChange(written.patch, written.removed), {
      attempts: Math.max(fields.attempts + written.charge, 0),
    });
  } else if (result === "aborted") fields.status = "aborted";
}
