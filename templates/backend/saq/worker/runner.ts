/**
 * The jobs of one worker, from claimed to recorded: fills its slots, runs attempts, and hands what came of them to the
 * acknowledgement that leaves next. A slot is free when its task is over, not when that is recorded.
 */
import type { ClaimedJob, Settlement } from "../broker.js";
import { ConfigError } from "../errors.js";
import type { JobFields } from "../job.js";
import type { Logger } from "../logger.js";
import type { Queue } from "../queue.js";
import {
  type AnyTask,
  type ApplyOptions,
  type Context,
  type EnqueueOptions,
  findTask,
  isThreadTask,
  runnerOf,
} from "../task.js";
import { setAside } from "../transitions.js";
import { inputSchemaOf, outputSchemaOf, validatePayload, validateResult } from "../validation.js";
import { decodeJob } from "../wire.js";
import { Attempt, type AttemptEnd, type AttemptHost } from "./attempt.js";
import { Feeder } from "./feeder.js";
import { lastFailure, type OutcomeRules, release, settlementOf } from "./outcome.js";
import { Report } from "./report.js";
import { Threads } from "./threads.js";

/** Results that wait to be recorded before no more jobs are started. */
const mostUnsettled = 2_000;

/** How often a job is given back because its last run here never ends, before it counts as failed. */
const mostRefusals = 5;

export class Runner implements AttemptHost {
  readonly queueName: string;
  readonly hardDeadlineMs: number;
  readonly running = new Map<string, Attempt>();
  readonly report: Report;
  /**
   * Tasks that outlived their deadline, by key, with how often their job came back meanwhile: it must not run a second
   * time beside them (D-46).
   */
  readonly #overdue = new Map<string, number>();
  readonly #settling = new Set<Promise<void>>();
  readonly #queue: Queue;
  readonly #names: Map<AnyTask, string>;
  readonly #feeder: Feeder;
  /** Null where no task needs a thread. */
  readonly #threads: Threads | null;
  #closed = false;
  #becameIdle: () => void = () => {};

  constructor(
    queue: Queue,
    readonly workerId: string,
    readonly logger: Logger,
  ) {
    const { config, broker } = queue;
    this.queueName = queue.name;
    this.hardDeadlineMs = config.cancellationHardDeadline * 1_000;
    this.report = new Report(logger, queue.counters);
    this.#queue = queue;
    this.#names = new Map(Object.entries(config.tasks).map(([name, task]) => [task, name]));
    this.#feeder = new Feeder({
      broker,
      workerId: this.workerId,
      concurrency: config.concurrency,
      priorities: config.priorities,
      prefetch: config.prefetch,
      logger,
      freeSlots: () => (this.#isCongested ? Number.NEGATIVE_INFINITY : config.concurrency - this.#taken),
      ready: () => this.#fill(),
      giveBack: (jobs) => this.#giveBack(jobs),
    });
    this.#threads = Object.values(config.tasks).some(isThreadTask)
      ? new Threads({
          size: config.threads,
          queueName: queue.name,
          workerId,
          logger,
          start: (claimed) => this.#startJob(claimed, true),
          giveBack: (claimed) => this.#giveBack([claimed]),
        })
      : null;
  }

  /** Slots in use, those of jobs that wait for a thread among them. */
  get #taken(): number {
    return this.running.size + (this.#threads?.waiting ?? 0);
  }

  get #isCongested(): boolean {
    return this.#settling.size > mostUnsettled;
  }

  /** Keys of the jobs whose task outlived its hard deadline and still goes on. */
  get overdueKeys(): string[] {
    return [...this.#overdue.keys()];
  }

  now(): number {
    return this.#queue.broker.now();
  }

  /** Something may be claimable now. */
  wake(): void {
    this.#feeder.wake();
  }

  /** A due second. */
  tick(): Promise<void> {
    return this.#feeder.tick();
  }

  /** Starts no more jobs; resolves when what was claimed and not started is on its way back. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#giveBack(this.#threads?.release() ?? []);
    this.#giveBack(await this.#feeder.stop());
  }

  /** Resolves when no job runs. */
  idle(): Promise<void> {
    if (this.running.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#becameIdle = resolve;
    });
  }

  /** Ends the threads; what still runs in one ends with it. */
  async endThreads(): Promise<void> {
    await this.#threads?.close();
  }

  /** Resolves when every outcome so far is recorded. */
  async settled(): Promise<void> {
    while (this.#settling.size > 0) await Promise.all(this.#settling);
  }

  #fill(): void {
    while (!this.#closed && !this.#isCongested && this.#taken < this.#queue.config.concurrency) {
      const claimed = this.#feeder.next();
      if (!claimed) break;
      this.#startJob(claimed);
    }
    this.#feeder.refill();
  }

  #startJob(claimed: ClaimedJob, hasThread = false): void {
    const fields = this.#decode(claimed);
    if (!fields) return;
    const attempt = new Attempt(this, claimed, fields);
    const last = this.running.get(claimed.key);
    last?.interrupt("lost", "taken over by another worker");
    if (last || this.#overdue.has(claimed.key)) {
      this.#refuse(attempt);
      return;
    }
    if (this.#threads && !hasThread && isThreadTask(findTask(this.#queue.config.tasks, fields.function))) {
      if (!this.#threads.admit(claimed)) return;
    }
    this.running.set(claimed.key, attempt);
    this.report.started(attempt);
    attempt.run((ctx) => this.#call(attempt, ctx));
  }

  /**
   * The job came back while its last run still goes on in this process: taken over and given up elsewhere meanwhile, or
   * a task that outlived its deadline. Never two runs of one key here (D-46): back with it, for a second or for another
   * worker. Where there is no other and the task never ends, that would go on for ever.
   */
  #refuse(attempt: Attempt): void {
    const { key } = attempt.fields;
    const refusals = (this.#overdue.get(key) ?? 0) + 1;
    if (this.#overdue.has(key)) this.#overdue.set(key, refusals);
    if (refusals < mostRefusals) {
      if (refusals === 1) this.report.refused(attempt);
      this.#settle(attempt, { ...release(attempt), scheduled: Math.ceil(this.now() / 1_000) + 1 });
      return;
    }
    const error = new Error("its last run in this worker still goes on and ignores its signal");
    this.#settle(attempt, lastFailure(attempt, error, this.#rules()), { kind: "threw", error });
  }

  #rules(): OutcomeRules {
    return { nowMs: this.now(), failedTtl: this.#queue.config.failedTtl };
  }

  #call(attempt: Attempt, ctx: Context): unknown {
    const { fields } = attempt;
    const { tasks } = this.#queue.config;
    const task = findTask(tasks, fields.function);
    if (!task)
      throw new Error(`Unknown task "${fields.function}" (registered: ${Object.keys(tasks).join(", ")})`);
    const run =
      this.#threads && isThreadTask(task)
        ? this.#threads.runnerOf(task, attempt)
        : (runnerOf(task) as (ctx: Context, payload: unknown) => unknown);
    const [input, output] = [inputSchemaOf(task), outputSchemaOf(task)];
    const kwargs = fields.kwargs ?? {};
    const payload = input ? validatePayload(fields.function, input, kwargs) : kwargs;
    const returned =
      payload instanceof Promise ? payload.then((taken) => run(ctx, taken)) : run(ctx, payload);
    if (!output) return returned;
    return Promise.resolve(returned).then((result) => validateResult(fields.function, output, result));
  }

  #decode(claimed: ClaimedJob): JobFields | null {
    try {
      return decodeJob(claimed.document, this.queueName, "active");
    } catch (error) {
      this.logger.error(
        { err: error, job: claimed.key },
        "the stored document is not a SAQ job; set aside as failed",
      );
      const settled = this.#queue.broker
        .change(claimed.key, (row) => ({
          change: row.token === claimed.token ? setAside : null,
          answer: null,
        }))
        .catch((reason: unknown) =>
          this.logger.error({ err: reason, job: claimed.key }, "could not set a job aside"),
        );
      this.#track(settled.then(() => {}));
      return null;
    }
  }

  /** An attempt is over: its slot is free at once, what came of it is recorded with the next statement. */
  ended(attempt: Attempt, end: AttemptEnd): void {
    const { fields } = attempt;
    this.running.delete(fields.key);
    this.#threads?.left(fields.key);
    this.#feeder.measure(performance.now() - attempt.startedAt, fields.timeout);
    if (end.kind === "interrupted" && end.overdue) this.#remember(attempt);
    const settlement = settlementOf(attempt, end, this.#rules());
    if (settlement) this.#settle(attempt, settlement, end);
    else this.report.lost(attempt);
    if (this.running.size === 0) this.#becameIdle();
    this.#fill();
  }

  #remember(attempt: Attempt): void {
    const { key } = attempt.fields;
    this.report.overdue(attempt);
    this.#overdue.set(key, 0);
    void attempt.settled?.then(() => this.#overdue.delete(key));
  }

  #settle(attempt: Attempt, settlement: Settlement, end?: AttemptEnd): void {
    this.#track(
      this.#queue.broker.settle(settlement).then(
        (result) => {
          if (attempt.fields.groupKey !== null) this.#feeder.groupEnded();
          if (settlement.status === "queued" && settlement.scheduled <= this.now() / 1_000)
            this.#feeder.wake();
          if (end) this.report.settled(attempt, end, settlement.status, result);
        },
        (error: unknown) => this.report.unsettled(attempt, settlement, error),
      ),
    );
  }

  #giveBack(jobs: readonly ClaimedJob[]): void {
    for (const claimed of jobs) {
      const fields = this.#decode(claimed);
      if (!fields) continue;
      const attempt = new Attempt(this, claimed, fields);
      this.#settle(attempt, release(attempt));
    }
  }

  #track(settling: Promise<void>): void {
    this.#settling.add(settling);
    void settling.finally(() => {
      this.#settling.delete(settling);
      if (this.#settling.size === mostUnsettled) this.#fill();
    });
  }

  // --- what tasks ask for ---

  async touch(claim: ClaimedJob, patch: string, removed: readonly string[]): Promise<boolean> {
    const [owned] = await this.#queue.broker.touch([{ ...claim, patch, removed }]);
    return owned === true;
  }

  async enqueue(task: AnyTask, args: unknown[]): Promise<{ readonly id: string } | null> {
    const [payload, options] = args as [payload?: unknown, options?: EnqueueOptions];
    return this.#queue.enqueue(this.#nameOf(task, "enqueue"), payload, options);
  }

  async apply(task: AnyTask, args: unknown[]): Promise<unknown> {
    const [payload, options] = args as [payload?: unknown, options?: ApplyOptions];
    return this.#queue.apply(this.#nameOf(task, "apply"), payload, options);
  }

  #nameOf(task: AnyTask, method: string): string {
    const name = this.#names.get(task);
    if (name !== undefined) return name;
    throw new ConfigError(
      `ctx.${method}: this task is not in the tasks of queue "${this.queueName}"; add it in defineQueue`,
    );
  }
}
