/** Settles jobs, many per script. */
import type { Decided, Heartbeat, Settlement, SettleResult } from "../broker.js";
import { bytesOf } from "../core/byte-size.js";
import { isTakenOver, read } from "../core/stored-job.js";
import { finishedFields, heartbeatPatch, keepSeconds } from "../core/transitions.js";
import { encodeChange, mergePatches } from "../core/wire.js";
import { SaqError } from "../errors.js";
import { Coalescer, type CoalescerOptions } from "../storage/coalescer.js";
import type { RedisConnection, RetryOptions } from "./connection.js";
import { notificationOf } from "./events.js";
import type { JobDecision, JobStore, ReadJob } from "./jobs.js";
import type { QueueKeys } from "./keys.js";
import { completeScript } from "./lua/complete.js";
import { receiptOf } from "./receipt.js";

/** How long a settlement is sent again while the server cannot be reached, ms. */
const settleTimeoutMs = 10 * 60_000;
const heartbeatTimeoutMs = 8_000;
/** Maximum number of jobs per script: while a script runs, the server does nothing else. */
const maxItems = 500;

export class Settler {
  /** Completions of documents that still end as their claim left them: most settlements of most queues. */
  readonly #completions: Coalescer<Settlement, SettleResult>;
  readonly #others: Coalescer<Settlement, SettleResult>;
  /** Completions that their script did not apply; each is still being decided. */
  readonly #pending = new Set<Promise<unknown>>();
  /** Settlements that were sent again, because the response to their script was lost. The script may have run. */
  readonly #repeated = new WeakSet<Settlement>();

  constructor(
    private readonly connection: RedisConnection,
    private readonly keys: QueueKeys,
    private readonly jobs: JobStore,
    private readonly failedTtl: number,
  ) {
    const options: CoalescerOptions<Settlement, SettleResult> = {
      maxItems,
      maxBytes: 4 * 1024 * 1024,
      bytesOf: ({ patch }) => bytesOf(patch),
      splitOnError: () => null,
      failureOf: unrecordedError,
      identityOf: ({ key }) => key,
    };
    this.#completions = new Coalescer((items) => this.#complete(items), options);
    this.#others = new Coalescer((items) => this.#decide(items), options);
  }

  settle(settlement: Settlement, decided: Decided<SettleResult>): void {
    const isFast =
      settlement.unchanged && settlement.status === "complete" && receiptOf(settlement).suffix !== null;
    (isFast ? this.#completions : this.#others).put(settlement, decided);
  }

  async drained(): Promise<void> {
    await Promise.all([this.#completions.drained(), this.#others.drained()]);
    while (this.#pending.size > 0) {
      await Promise.allSettled(this.#pending);
      await this.#others.drained();
    }
  }

  async #complete(items: Settlement[]): Promise<(SettleResult | Promise<SettleResult>)[]> {
    const { keys } = this;
    const claims: string[] = [];
    const numberOf = new Map<string, string>();
    const jobs: string[] = [];
    for (const item of items) {
      const { token, suffix } = receiptOf(item);
      let number = numberOf.get(token);
      if (number === undefined) {
        const { kept = "", replaced = "" } = suffix ?? {};
        number = String(claims.push(token, kept + replaced, String(Buffer.byteLength(replaced))) / 3);
        numberOf.set(token, number);
      }
      const notification = notificationOf(item, this.keys.events);
      jobs.push(
        number,
        // The patch continues the document, so its opening brace is left out.
        item.patch.slice(1),
        item.keep === null ? "" : item.keep < 0 ? "-1" : String(Math.max(item.keep, 1)),
        notification ? `${notification.channel}\n${notification.text}` : "",
      );
    }
    const args = [String(numberOf.size), ...claims, ...jobs];
    const done = (await this.connection.run(
      completeScript,
      [
        keys.active,
        keys.incomplete,
        keys.claims,
        keys.finished("complete"),
        ...items.map(({ key }) => keys.id(key)),
      ],
      args,
      this.#retryOptions(items),
    )) as number[];
    return items.map((item, index) => (done[index] === 1 ? "applied" : this.#track(this.#others.add(item))));
  }

  #retryOptions(items: readonly Settlement[]): RetryOptions {
    return {
      timeoutMs: settleTimeoutMs,
      onRepeat: () => {
        for (const item of items) this.#repeated.add(item);
      },
    };
  }

  #track<Answer>(answer: Promise<Answer>): Promise<Answer> {
    const tracked = answer.finally(() => this.#pending.delete(tracked));
    this.#pending.add(tracked);
    return tracked;
  }

  async #decide(items: Settlement[]): Promise<SettleResult[]> {
    const itemOf = new Map(items.map((item) => [item.key, item]));
    const decide = (job: ReadJob, clock: number): JobDecision<SettleResult> => {
      const item = itemOf.get(job.key);
      if (!item) return { change: null, answer: "lost" };
      return this.#decideOne(item, job, clock);
    };
    const answers = await this.jobs.changeMany([...itemOf.keys()], decide, this.#retryOptions(items));
    // If the document is gone, our own script has deleted it (ttl < 0) and its response was lost, or others have.
    return items.map((item) => {
      const isDeleted = item.keep !== null && item.keep < 0 && this.#repeated.has(item);
      return answers.get(item.key) ?? (isDeleted ? "applied" : "gone");
    });
  }

  #decideOne(item: Settlement, job: ReadJob, clock: number): JobDecision<SettleResult> {
    const { token, workerId } = receiptOf(item);
    if (job.token !== token) {
      const isApplied =
        this.#repeated.has(item) && job.token === "" && job.status === item.status && endsAlike(job, item);
      return { change: null, answer: isApplied ? "applied" : "lost" };
    }
    if (isTakenOver(job, { workerId })) return { change: null, answer: "lost" };
    const notification = notificationOf(item, this.keys.events);
    if (job.status === "aborting") {
      // After an abort was requested, "aborted" is the only allowed status, whatever the task returned or threw.
      const fields = read(job);
      const change = encodeChange(finishedFields("aborted", clock, { error: fields?.error ?? null }));
      const keep = keepSeconds(fields?.ttl ?? 0, "aborted", this.failedTtl);
      return {
        change: {
          status: "aborted",
          ...change,
          keep,
          notification: notificationOf({ ...item, status: "aborted" }, this.keys.events),
        },
        answer: "aborted",
      };
    }
    if (job.status !== "active") return { change: null, answer: "lost" };
    const charged =
      item.charge === 0 ? {} : { attempts: Math.max((read(job)?.attempts ?? 0) + item.charge, 0) };
    const extra = encodeChange(charged);
    return {
      change: {
        status: item.status,
        patch: mergePatches(item.patch, extra.patch),
        removed: [...item.removed, ...extra.removed],
        notification,
        ...(item.status === "queued"
          ? { scheduled: item.scheduled, position: positionOf(item), keep: null }
          : { keep: item.keep }),
      },
      answer: "applied",
    };
  }

  /** @see Broker.heartbeat */
  async heartbeat(changes: readonly Heartbeat[], isOver?: () => boolean): Promise<boolean[]> {
    const changeOf = new Map(changes.map((change) => [change.key, change]));
    const owned = await this.jobs.changeMany<boolean>(
      [...changeOf.keys()],
      (job) => {
        const change = changeOf.get(job.key);
        const receipt = change && receiptOf(change);
        const isOurs =
          receipt && job.token === receipt.token && job.status === "active" && !isTakenOver(job, receipt);
        if (!isOurs) return { change: null, answer: false };
        const patch = heartbeatPatch(job, change);
        return { change: { status: "active", patch, removed: change.removed }, answer: true };
      },
      isOver ? { timeoutMs: settleTimeoutMs, isWanted: () => !isOver() } : { timeoutMs: heartbeatTimeoutMs },
    );
    return changes.map(({ key }) => owned.get(key) === true);
  }
}

/** Returns where a job is put that is queued again and is due. */
const positionOf = ({ charge, behindOthers }: Settlement): "front" | "back" =>
  charge < 0 && !behindOthers ? "front" : "back";

/** True if the job has ended or was queued as this settlement says. */
function endsAlike(job: ReadJob, { patch }: Settlement): boolean {
  const fields = read(job);
  const wanted = JSON.parse(patch) as { completed?: unknown; touched?: unknown };
  return fields !== null && (fields.completed === wanted.completed || fields.touched === wanted.touched);
}

const unrecordedError = ({ key, status }: Settlement, cause: unknown): SaqError =>
  new SaqError(
    "unrecorded",
    `The end of job ${key} (${status}) could not be recorded, so its document still says that the job runs. This ` +
      "worker puts the job back into the queue as soon as it can; if this worker ends first, another worker does so. " +
      "The job may run again.",
    { cause },
  );
