/**
 * The legal changes, written from V-5 and DESIGN 5.2 without looking at the engine's statements: how a job changes with
 * each operation on it, and which answer the caller must get.
 */
import type { Settlement, SettleResult } from "../../../../templates/backend/saq/broker.js";
import type { Status } from "../../../../templates/backend/saq/core/job.js";
import type { Refusal } from "../../../../templates/backend/saq/core/new-job.js";
import type { AbortAnswer, RetryAnswer } from "../../../../templates/backend/saq/core/transitions.js";
import { can, onRedis } from "../../support/test-broker.js";

/** A job in the model. */
export interface ModelJob {
  status: Exclude<Status, "new">;
  attempts: number;
  retries: number;
  /** Seconds. */
  timeout: number;
  ttl: number;
  retryDelay: number;
  priority: number;
  group: string | null;
  error: string | null;
  lost: number;
  /**
   * A dead worker has held the job. Then a loss counts only if a heartbeat or an overdue run shows that the job
   * started.
   */
  held: boolean;
  /** A heartbeat of the current claim is stored. */
  alive: boolean;
  cancellations: number;
  snoozes: number;
  /** Number of failed attempts since the enqueue. */
  failures: number;
  /** The token of the row or of the claim; null if storage has chosen one that the model has not seen yet. */
  token: Token | null;
  workerId: string | null;
  /** The column, epoch s, somewhere in this span: only storage knows its clock. */
  scheduled: Span;
  /** The due time in the document, epoch s; 0 = at once. A claim copies it into the column. */
  asked: Span;
  /** The job has run for longer than its timeout and every grace period. */
  overdue: boolean;
  /** The time for which the finished row is kept has ended. */
  expired: boolean;
}

/** A number on PostgreSQL, a text on Redis. */
export type Token = number | string;

export interface Span {
  from: number;
  to: number;
}

/** One operation on one job, with its answer. `now` is the second of the database's clock at that time. */
export type Event = { key: string; now: Span } & (
  | { kind: "enqueue"; job: ModelJob; answer: "stored" | Refusal }
  | { kind: "claim"; token: Token; workerId: string; attempts: number }
  | {
      kind: "settle";
      end: End;
      written: Settlement["status"];
      token: Token;
      /** The token that a row gets when it is queued again. On Redis, only claims have tokens. */
      place: Token | null;
      due: number;
      answer: SettleResult;
    }
  | { kind: "touch"; token: Token; answer: boolean }
  | { kind: "abort"; answer: AbortAnswer | null }
  | { kind: "retry"; answer: RetryAnswer | null }
  | { kind: "lose" }
  | { kind: "sweep" }
  // Storage does not report which rows it deletes. So the row may be deleted; `gone` means that a look found none.
  | { kind: "expire"; gone: boolean }
);

/** How a worker ends an attempt. */
export type End = "complete" | "threw" | "gave up" | "snoozed" | "shutdown" | "release" | "aborted";

export const lostLimit = 3;

const isTerminal = (job: ModelJob) =>
  job.status === "complete" || job.status === "failed" || job.status === "aborted";
const isRunning = (job: ModelJob) => job.status === "active" || job.status === "aborting";

/**
 * Returns the job's group in storage. From its second loss on, a job without a group is in the group of jobs that run
 * alone.
 */
export const groupOf = ({ group, lost }: ModelJob): string | null =>
  group ?? (lost >= 2 && can("groups") ? "saq:alone" : null);

/** Returns the job after the event, or null if its row is gone. A text is the reason why the event is not legal. */
export function step(job: ModelJob | null, event: Event): ModelJob | null | string {
  switch (event.kind) {
    case "enqueue":
      return enqueued(job, event);
    case "claim":
      if (job?.status !== "queued") return `claimed while it is ${job?.status ?? "not there"}`;
      if (job.scheduled.from > event.now.to) return "claimed before its time";
      if (event.attempts !== job.attempts + 1) return "a claim counts one attempt";
      return {
        ...job,
        status: "active",
        attempts: event.attempts,
        token: event.token,
        workerId: event.workerId,
        scheduled: job.asked,
        overdue: false,
        alive: false,
      };
    case "settle":
      return settled(job, event);
    case "touch": {
      const owned = job?.status === "active" && job.token === event.token;
      if (event.answer !== owned) return `the touch was answered ${event.answer}`;
      return owned ? { ...job, alive: true } : job;
    }
    case "abort":
      return aborted(job, event);
    case "retry": {
      const expected = job === null ? null : isTerminal(job) ? "queued" : "not_finished";
      if (event.answer !== expected) return `the retry was answered ${event.answer}, not ${expected}`;
      if (job === null || expected !== "queued") return job;
      return {
        ...job,
        ...waiting("retried", event.now),
        attempts: 0,
        lost: 0,
        held: false,
        cancellations: 0,
        snoozes: 0,
        expired: false,
      };
    }
    case "lose": {
      if (!job || !isRunning(job)) return "was taken over without running";
      if (job.status === "aborting") return swept({ ...job, status: "aborted" });
      const wasStarted = !job.held || job.alive || job.overdue;
      if (!wasStarted)
        return {
          ...job,
          ...waiting(job.error, job.asked.to > 0 ? job.asked : event.now),
          asked: job.asked,
          attempts: job.attempts - 1,
          workerId: null,
        };
      const lost = job.lost + 1;
      const failures = job.failures + 1;
      if (lost > lostLimit)
        return {
          ...job,
          failures,
          token: null,
          status: "failed",
          lost,
          error: `worker lost: ${lost} workers died while they ran this job, the last 2 of them while it ran alone`,
        };
      return {
        ...job,
        ...waiting("worker lost", event.now),
        lost,
        failures,
        held: true,
        attempts: job.attempts - 1,
      };
    }
    case "sweep": {
      if (!job || !isRunning(job) || !job.overdue || job.timeout === 0)
        return "was swept without being stuck";
      if (job.status === "aborting") return swept({ ...job, status: "aborted" });
      const failures = job.failures + 1;
      if (job.attempts >= job.retries) return swept({ ...job, failures, status: "aborted", error: "swept" });
      return { ...job, failures, ...waiting("swept", later(event.now, job.retryDelay)) };
    }
    case "expire":
      return job && isTerminal(job) && job.expired ? null : "was deleted before its time";
  }
}

function enqueued(held: ModelJob | null, { job, answer }: Event & { kind: "enqueue" }): ModelJob | string {
  const may: (typeof answer)[] = [];
  if (held === null) may.push("stored");
  else if (!isTerminal(held)) may.push("key_alive");
  else if (onRedis) may.push("stored");
  else {
    if (job.scheduled.to > held.scheduled.from) may.push("stored");
    if (job.scheduled.from <= held.scheduled.to) may.push("scheduled_not_later");
  }
  if (!may.includes(answer)) return `the enqueue was answered ${answer}, not ${may.join(" or ")}`;
  return answer === "stored" || held === null ? job : held;
}

function settled(job: ModelJob | null, event: Event & { kind: "settle" }): ModelJob | null | string {
  const { end, written, token, answer } = event;
  const expect = (expected: SettleResult, after: ModelJob | null) =>
    answer === expected ? after : `the end was answered ${answer}, not ${expected}`;
  // The missing row was deleted by a settlement like this one, or by somebody else.
  if (job === null) return answer === "aborted" ? "answered aborted without a row" : null;
  if (job.token !== token) {
    // The job waits at its old position: this settlement has returned it there, and the response was lost.
    const isBack =
      written === "queued" && job.status === "queued" && event.place !== null && job.token === event.place;
    return expect(isBack ? "applied" : "lost", job);
  }
  if (job.status === "aborting") return expect("aborted", kept({ ...job, status: "aborted" }));
  if (job.status !== "active") {
    return expect(isTerminal(job) && job.status === written ? "applied" : "lost", job);
  }
  switch (end) {
    case "complete":
      return expect("applied", kept({ ...job, status: "complete", error: null }));
    case "aborted":
      return expect("applied", kept({ ...job, status: "aborted" }));
    case "gave up":
    case "threw":
      if (end === "gave up" || job.attempts >= job.retries)
        return expect(
          "applied",
          kept({ ...job, failures: job.failures + 1, status: "failed", error: "boom" }),
        );
      return expect("applied", {
        ...job,
        failures: job.failures + 1,
        ...waiting("boom", later(event.now, job.retryDelay)),
        token: event.place,
      });
    case "snoozed":
      return expect("applied", {
        ...job,
        ...waiting(null, event.now),
        attempts: job.attempts - 1,
        snoozes: job.snoozes + 1,
        token: event.place,
      });
    case "shutdown":
      return expect("applied", {
        ...job,
        ...waiting("cancelled", at(event.due)),
        asked: job.asked,
        attempts: job.attempts - 1,
        cancellations: job.cancellations + 1,
        token: event.place,
      });
    case "release":
      return expect("applied", {
        ...job,
        ...waiting(job.error, at(event.due)),
        asked: job.asked,
        attempts: job.attempts - 1,
        workerId: null,
        token: event.place,
      });
  }
}

function aborted(job: ModelJob | null, { answer }: Event & { kind: "abort" }): ModelJob | null | string {
  const expected =
    job === null ? null : isTerminal(job) ? "not_active" : job.status === "queued" ? "aborted" : "aborting";
  if (answer !== expected) return `the abort was answered ${answer}, not ${expected}`;
  if (job?.status === "queued") return kept({ ...job, status: "aborted", error: "nope", scheduled: at(0) });
  if (job?.status === "active") return { ...job, status: "aborting", error: "nope" };
  return job;
}

const at = (second: number): Span => ({ from: second, to: second });
/** A delay is rounded up; no delay means now (D-30). */
const later = (now: Span, delay: number): Span =>
  delay > 0 ? { from: now.from + delay, to: now.to + delay + 1 } : now;
/**
 * J-16: a row with a negative ttl is not kept. On Redis a finished job has no token, so the same settlement is refused
 * if it is sent a second time without a lost response.
 */
const kept = (job: ModelJob): ModelJob | null =>
  job.ttl < 0 ? null : { ...job, expired: false, token: onRedis ? null : job.token };
/** The row has a fresh token, so that the worker that held it cannot change what is stored under its key later. */
const swept = (job: ModelJob): ModelJob | null => kept({ ...job, token: null });
const waiting = (error: string | null, scheduled: Span) => ({
  status: "queued" as const,
  error,
  scheduled,
  asked: scheduled,
  overdue: false,
  // A fresh token, unless the claim's old position is restored.
  token: null,
});

/**
 * Finds an order of the events that leads from `job` to the stored row. Statements of several clients at the same time
 * are correct if each row could have resulted from running them one after the other. Returns the job after the events,
 * or the reasons why no order fits.
 */
export function explain(
  job: ModelJob | null,
  events: readonly Event[],
  isThere: (after: ModelJob | null) => string | null,
): { after: ModelJob | null } | { why: string[] } {
  const why: string[] = [];
  if (events.every(({ kind }) => kind === "expire")) {
    const difference = isThere(job);
    if (difference === null) return { after: job };
    why.push(difference);
  }
  for (const [index, event] of events.entries()) {
    const after = step(job, event);
    if (typeof after === "string") {
      why.push(after);
      continue;
    }
    const rest = explain(after, events.toSpliced(index, 1), isThere);
    if ("after" in rest) return rest;
    why.push(...rest.why);
  }
  return { why };
}
