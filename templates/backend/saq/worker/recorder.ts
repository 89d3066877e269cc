/** Outcomes on their way into storage, and what follows when they have arrived: counting, a log line, hooks. */
import type { Broker, ClaimedJob, Decided, Settlement, SettleResult } from "../broker.js";
import type { Logger } from "../logger.js";
import { setAside } from "../transitions.js";
import { fieldsOfChange } from "../wire.js";
import type { Attempt } from "./attempt.js";
import type { AroundJobs } from "./hooks.js";
import type { AttemptEnd } from "./outcome.js";
import type { Report } from "./report.js";

/**
 * Results that wait to be recorded before no more jobs are started. Two statements' worth were too few: tasks stood still
 * whenever one took long (2,000 -> 4,000: drain 1.04 and 1.10 times in two runs).
 */
const mostUnsettled = 4_000;
/** Characters of them: few large results wait where many small ones may. */
const mostUnsettledLength = 64 * 1024 * 1024;

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

/** One outcome on its way. An object instead of promises and closures: these were a fifth of a no-op job's CPU. */
class Recording implements Decided<SettleResult> {
  constructor(
    private readonly recorder: Pick<Recorder, "recorded" | "unrecorded">,
    readonly attempt: Attempt,
    readonly settlement: Settlement,
    readonly end: AttemptEnd | undefined,
  ) {}

  resolve(result: SettleResult): void {
    this.recorder.recorded(this, result);
  }

  reject(error: unknown): void {
    this.recorder.unrecorded(this, error);
  }
}

export class Recorder {
  readonly #options: RecorderOptions;
  #underWay = 0;
  #lengthUnderWay = 0;
  #waiting: (() => void)[] = [];

  constructor(options: RecorderOptions) {
    this.#options = options;
  }

  get isCongested(): boolean {
    return this.#underWay > mostUnsettled || this.#lengthUnderWay > mostUnsettledLength;
  }

  /** Resolves when every outcome so far is recorded, and the hooks that follow have run. */
  async settled(): Promise<void> {
    while (this.#underWay > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** `end` is left out for a job that never began here. */
  settle(attempt: Attempt, settlement: Settlement, end?: AttemptEnd): void {
    this.#underWay++;
    this.#lengthUnderWay += settlement.patch.length;
    this.#options.broker.settle(settlement, new Recording(this, attempt, settlement, end));
  }

  recorded(recording: Recording, result: SettleResult): void {
    const { attempt, settlement, end } = recording;
    const { report, stored, around } = this.#options;
    try {
      stored(attempt, settlement);
      if (end) {
        report.settled(attempt, end, settlement.status, result);
        if (around) takeOver(attempt, settlement, result);
      }
    } finally {
      this.#after(recording);
    }
  }

  unrecorded(recording: Recording, error: unknown): void {
    try {
      this.#options.report.unsettled(recording.attempt, recording.settlement, error);
    } finally {
      this.#after(recording);
    }
  }

  #after({ attempt, settlement, end }: Recording): void {
    const { around } = this.#options;
    const { length } = settlement.patch;
    if (around && end) void around.ended(attempt).finally(() => this.#left(length));
    else this.#left(length);
  }

  /** There is nothing to write: the job is somebody else's by now. */
  dropped(attempt: Attempt): void {
    const { report, around } = this.#options;
    report.lost(attempt);
    if (around) this.#track(around.ended(attempt));
  }

  /** The document of a claimed job cannot be read: failed, its bytes as the claim has left them. */
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
    this.#underWay++;
    void settling.finally(() => this.#left(0));
  }

  #left(length: number): void {
    const wasCongested = this.isCongested;
    this.#underWay--;
    this.#lengthUnderWay -= length;
    if (wasCongested && !this.isCongested) this.#options.relieved();
    if (this.#underWay > 0 || this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }
}

/** Shows the hooks after a task the job as it is stored now. */
function takeOver({ fields, ownEnd }: Attempt, settlement: Settlement, result: SettleResult): void {
  const written = result === "applied" ? settlement : result === "finished" ? ownEnd?.settlement : null;
  if (written) {
    Object.assign(fields, fieldsOfChange(fields, written.patch, written.removed), {
      attempts: Math.max(fields.attempts + written.charge, 0),
    });
  } else if (result === "aborted") fields.status = "aborted";
}
