/**
 * The tracing channels of `node:diagnostics_channel` on which the engine publishes what it does. Each call of a traced
 * operation has one message object, which all its events share: `start` and `end` around the synchronous part,
 * `asyncStart` and `asyncEnd` when it is over, and `error` before these two if it failed. Before `asyncStart` the
 * message gets `result` or `error`.
 *
 * Without subscribers no message is made. Then a traced operation costs the check of `hasSubscribers`.
 */
import { tracingChannel } from "node:diagnostics_channel";
import type { SettleResult } from "../broker.js";
import type { RunningJob } from "../tasks/task.js";

/**
 * One call that stores jobs: `enqueue`, `enqueueMany`, `apply`, `map`, the enqueue of a job object, or the storing of
 * ticks of scheduled tasks.
 */
export interface EnqueueMessage {
  /** Name of the queue. */
  readonly queue: string;
  /** The jobs as the caller passed them. `payload` and `options` are the caller's objects, not copies. */
  readonly jobs: readonly { readonly task: string; readonly payload: unknown; readonly options: object }[];
  /**
   * The jobs in the same order, after the call has succeeded. `refused`: why the job was not stored, for example
   * `key_alive`, and for a tick also `done` (it was stored before), `paused` or `busy`; null if it was stored.
   */
  result?: readonly { readonly key: string; readonly refused: string | null }[];
  /** What the call threw. */
  error?: unknown;
}

/**
 * One attempt of a job, from the call of its first hook or its task until that call has ended. `start` is published
 * when the task starts, not when its job is claimed. An attempt that does not end at its hard deadline publishes
 * `asyncEnd` when its task ends, which may be never.
 */
export interface ProcessMessage {
  /** Name of the queue. */
  readonly queue: string;
  readonly workerId: string;
  /** The job, as its task sees it in `ctx.job`. */
  readonly job: RunningJob;
  /** What the task returned. */
  result?: unknown;
  /** What the task or a hook threw, unless it was a snooze: such an attempt has neither a result nor an error. */
  error?: unknown;
}

/** One claim of a worker. A claim that finds no job is published too. */
export interface ClaimMessage {
  /** Name of the queue. */
  readonly queue: string;
  readonly workerId: string;
  /** Maximum number of jobs to claim. */
  readonly limit: number;
  /** True: only jobs with a group key are claimed. False: only jobs without one. */
  readonly grouped: boolean;
  /** The keys of the claimed jobs. */
  result?: readonly string[];
  /** Why the claim failed. The worker tries again. */
  error?: unknown;
}

/** A settlement of one job: how its attempt ended is recorded, or the job is given back without having been started. */
export interface SettleMessage {
  /** Name of the queue. */
  readonly queue: string;
  readonly workerId: string;
  /** The job's key. */
  readonly key: string;
  /** Name of the task. */
  readonly task: string;
  /** The status to record. `queued`: the job runs again. */
  readonly status: "complete" | "failed" | "aborted" | "queued";
  /** False if the job is given back without having been started. */
  readonly started: boolean;
  /**
   * `applied`: the status was recorded. `aborted`: an abort came first. `finished`: `ctx.finish` came first. `lost`:
   * another worker owns the job. `gone`: the job was deleted.
   */
  result?: SettleResult;
  /** Why the settlement could not be recorded. */
  error?: unknown;
}

export const enqueueChannel = tracingChannel<unknown, EnqueueMessage>("saq:enqueue");
export const processChannel = tracingChannel<unknown, ProcessMessage>("saq:process");
export const claimChannel = tracingChannel<unknown, ClaimMessage>("saq:claim");
export const settleChannel = tracingChannel<unknown, SettleMessage>("saq:settle");
