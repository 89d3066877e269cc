/** Settles jobs in storage. After each settlement it counts the job, writes a log line and runs the hooks. */

import type { Broker, Decided, Settlement, SettleResult } from "../../broker.js";
import { bytesOf } from "../../core/byte-size.js";
import type { Claim, ClaimedJob } from "../../core/claim.js";
import { fieldsOfChange } from "../../core/wire.js";
import { describe, type Logger } from "../../logger.js";
import { type SettleMessage, settleChannel } from "../../telemetry/channels.js";
import type { Attempt } from "../attempt/attempt.js";
import type { JobHooks } from "../attempt/hooks.js";
import type { Report } from "./report.js";
import type { AttemptResult } from "./settlement.js";

/**
 * Maximum number of ended jobs whose settlement or hooks are not complete. Above it no more jobs start. The jobs of two
 * statements were too few: no task ran while one statement took long (2,000 -> 4,000: the queue drained 1.04 and 1.10
 * times as fast in two runs).
 */
const maxUnsettled = 4_000;
/** Maximum bytes of the patches of these settlements. If results are large, fewer jobs may wait. */
const maxUnsettledBytes = 64 * 1024 * 1024;

export interface SettlerOptions {
  broker: Broker;
  queueName: string;
  workerId: string;
  report: Report;
  hooks: JobHooks | null;
  logger: Logger;
  /** Called when storage has returned the result of a settlement, whatever the result is. */
  onStored: (attempt: Attempt, settlement: Settlement) => void;
  /** Called when `isCongested` becomes false, so that jobs may start again. */
  onUncongested: () => void;
}

/**
 * One settlement whose result is pending. It is an object, because promises and closures took a fifth of a no-op job's
 * CPU.
 */
class PendingSettlement implements Decided<SettleResult> {
  constructor(
    private readonly settler: Pick<Settler, "onSettled" | "onSettleFailed">,
    readonly attempt: Attempt,
    readonly settlement: Settlement,
    readonly end: AttemptResult | undefined,
    /** Its index in the settler's list. */
    readonly index: number,
  ) {}

  resolve(result: SettleResult): void {
    this.settler.onSettled(this, result);
  }

  reject(error: unknown): void {
    this.settler.onSettleFailed(this, error);
  }
}

export class Settler {
  readonly #options: SettlerOptions;
  /**
   * Settlements whose result is pending; `claims` yields them. Not a Set: when a Set grows, its old tables keep their
   * entries alive until a full garbage collection (a no-op job took 1.15 times the CPU).
   */
  readonly #pending: (PendingSettlement | null)[] = [];
  readonly #freeIndexes: number[] = [];
  /**
   * Claims whose job has run and whose settlement could not be stored, by job key. An entry is removed when the job no
   * longer runs under the claim.
   */
  readonly #unrecorded = new Map<string, Claim>();
  /** Claimed jobs whose document cannot be read, and that are not set aside yet. */
  readonly #unreadable: ClaimedJob[] = [];
  /** Claims whose loss is being stored. */
  readonly #lossesInFlight = new Set<Claim>();
  #inFlight = 0;
  #bytesInFlight = 0;
  /** The calls of `settled` that wait. */
  #settledWaiters: (() => void)[] = [];

  constructor(options: SettlerOptions) {
    this.#options = options;
  }

  get isCongested(): boolean {
    return this.#inFlight > maxUnsettled || this.#bytesInFlight > maxUnsettledBytes;
  }

  /** Resolves when each settlement so far is stored or has failed, and the hooks after it have run. */
  async settled(): Promise<void> {
    while (this.#inFlight > 0) await new Promise<void>((resolve) => this.#settledWaiters.push(resolve));
  }

  /** Sends the settlement of a job. `end` is left out for a job that is given back without being started. */
  settle(attempt: Attempt, settlement: Settlement, end?: AttemptResult): void {
    this.#inFlight++;
    this.#bytesInFlight += bytesOf(settlement.patch);
    const index = this.#freeIndexes.pop() ?? this.#pending.length;
    const pending = new PendingSettlement(this, attempt, settlement, end, index);
    this.#pending[index] = pending;
    if (end) attempt.trace?.startSettling(settlement.status);
    if (settleChannel.hasSubscribers) this.#publish(pending);
    else this.#options.broker.settle(settlement, pending);
  }

  /** Sends a settlement, and publishes it to the subscribers of the channel `saq:settle`. */
  #publish(pending: PendingSettlement): void {
    const { broker, queueName: queue, workerId } = this.#options;
    const { attempt, settlement, end } = pending;
    const { key, status } = settlement;
    const message: SettleMessage = {
      queue,
      workerId,
      key,
      task: attempt.fields.function,
      status,
      started: end !== undefined,
    };
    const settle = () =>
      new Promise<SettleResult>((resolve, reject) => broker.settle(settlement, { resolve, reject }));
    void settleChannel.tracePromise(settle, message).then(
      (result) => pending.resolve(result),
      (error: unknown) => pending.reject(error),
    );
  }

  /** Yields the claims of jobs that are being settled, set aside or stored as lost. */
  *claims(): Generator<Claim> {
    for (const pending of this.#pending) if (pending) yield pending.settlement;
    yield* this.#unreadable;
    yield* this.#lossesInFlight;
  }

  /** Claims whose job has run and whose end could not be recorded. */
  unrecordedClaims(): Iterable<Claim> {
    return this.#unrecorded.values();
  }

  onSettled(pending: PendingSettlement, result: SettleResult): void {
    const { attempt, settlement, end } = pending;
    const { report, onStored, hooks } = this.#options;
    this.#forget(pending);
    attempt.trace?.settled(result);
    try {
      onStored(attempt, settlement);
      if (end) {
        report.settled(attempt, end, settlement.status, result);
        if (hooks) applyStoredChange(attempt, settlement, result);
      }
    } finally {
      this.#runHooks(pending);
    }
  }

  onSettleFailed(pending: PendingSettlement, error: unknown): void {
    const { attempt, settlement, end } = pending;
    this.#forget(pending);
    attempt.trace?.settleFailed(error);
    // Without the document of the claimed job, because an entry stays until the database answers again.
    if (end) this.#unrecorded.set(settlement.key, { key: settlement.key, receipt: attempt.claim.receipt });
    try {
      this.#options.report.settleFailed(attempt, settlement, error);
    } finally {
      this.#runHooks(pending);
    }
  }

  #forget({ index }: PendingSettlement): void {
    this.#pending[index] = null;
    this.#freeIndexes.push(index);
  }

  #runHooks({ attempt, settlement, end }: PendingSettlement): void {
    const { hooks } = this.#options;
    const bytes = bytesOf(settlement.patch);
    if (hooks && end) void hooks.ended(attempt).finally(() => this.#complete(bytes));
    else this.#complete(bytes);
  }

  /** Called when the job no longer belongs to this worker. Logs the loss and runs the hooks, but stores nothing. */
  drop(attempt: Attempt): void {
    const { report, hooks } = this.#options;
    report.lost(attempt);
    if (hooks) this.#track(hooks.ended(attempt));
  }

  /** Called when an uncaught error ends the worker. Stores that the worker lost the job. */
  recordLoss(attempt: Attempt, limits: Parameters<Broker["recordLost"]>[1]): void {
    const { broker, report, hooks } = this.#options;
    const { claim } = attempt;
    this.#lossesInFlight.add(claim);
    const recorded = broker.recordLost([claim], limits).then(
      () => report.crashed(attempt),
      (error: unknown) => report.lossNotRecorded(attempt, error),
    );
    this.#track(
      recorded.then(() => {
        this.#lossesInFlight.delete(claim);
        return hooks?.ended(attempt);
      }),
    );
  }

  /** Marks a claimed job as failed because its document cannot be read. The bytes of the document are not changed. */
  setAside(claimed: ClaimedJob): void {
    // One claim may return thousands of such jobs. Those of one turn of the event loop are sent together.
    if (this.#unreadable.push(claimed) === 1) this.#track(this.#setAside());
  }

  /** Called when these jobs are in the queue again. Forgets that their settlements could not be stored. */
  requeued(keys: readonly string[]): void {
    for (const key of keys) this.#unrecorded.delete(key);
  }

  /** Called when the job no longer runs under this claim. Forgets that its settlement could not be stored. */
  forgetUnrecorded({ key, receipt }: Claim): void {
    if (this.#unrecorded.get(key)?.receipt === receipt) this.#unrecorded.delete(key);
  }

  async #setAside(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    const claims = [...this.#unreadable];
    try {
      await this.#options.broker.setAside(claims);
    } catch (error) {
      this.#options.logger.warn(
        { ...describe(error), jobs: claims.length },
        "could not set aside jobs whose document cannot be read; trying again later",
      );
    } finally {
      this.#unreadable.splice(0, claims.length);
      if (this.#unreadable.length > 0) this.#track(this.#setAside());
    }
  }

  #track(settling: Promise<unknown>): void {
    this.#inFlight++;
    void settling.finally(() => this.#complete(0));
  }

  #complete(bytes: number): void {
    const wasCongested = this.isCongested;
    this.#inFlight--;
    this.#bytesInFlight -= bytes;
    if (wasCongested && !this.isCongested) this.#options.onUncongested();
    if (this.#inFlight > 0 || this.#settledWaiters.length === 0) return;
    const waiters = this.#settledWaiters;
    this.#settledWaiters = [];
    for (const resolve of waiters) resolve();
  }
}

/** Updates the job's fields to the values that are stored now, for the hooks after the task. */
function applyStoredChange(
  { fields, transactionalFinish }: Attempt,
  settlement: Settlement,
  result: SettleResult,
): void {
  const stored =
    result === "applied" ? settlement : result === "finished" ? transactionalFinish?.settlement : null;
  if (stored) {
    Object.assign(fields, fieldsOfChange(fields, stored.patch, stored.removed), {
      attempts: Math.max(fields.attempts + stored.charge, 0),
    });
  } else if (result === "aborted") fields.status = "aborted";
}
