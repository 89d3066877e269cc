/**
 * What is legal, written from V-5 and DESIGN 5.2 without a look at the engine's statements: how one job goes on after
 * each thing that may be done to it, and what the doer is to be answered.
 */
import type { Settlement, SettleResult } from "../../../templates/backend/saq/broker.js";
import type { Status } from "../../../templates/backend/saq/job.js";
import type { Refusal } from "../../../templates/backend/saq/new-job.js";
import type { AbortAnswer, RetryAnswer } from "../../../templates/backend/saq/transitions.js";

/** A job as the model has it. */
export interface ModelJob {
  status: Exclude<Status, "new">;
  attempts: number;
  retries: number;
  /** s */
  timeout: number;
  ttl: number;
  retryDelay: number;
  priority: number;
  group: string | null;
  error: string | null;
  lost: number;
  /** A dead worker has had it before, so that its losses count only where a sign of life shows that it was started. */
  held: boolean;
  /** A sign of life of the present claim is stored. */
  alive: boolean;
  cancellations: number;
  /** The row's token; null where storage has chosen one that the model has not seen yet. */
  token: number | null;
  workerId: string | null;
  /** The column, epoch s, between these two: only storage knows its clock. */
  scheduled: Span;
  /** The due time in the document, epoch s; 0 = at once. A claim puts it into the column. */
  asked: Span;
  /** It has run for longer than its timeout and every grace. */
  overdue: boolean;
  /** Its time as a finished row has run out. */
  expired: boolean;
}

export interface Span {
  from: number;
  to: number;
}

/** One thing that was done to one job, with what was answered. `now` is the database's second at that time. */
export type Event = { key: string; now: Span } & (
  | { kind: "enqueue"; job: ModelJob; answer: "stored" | Refusal }
  | { kind: "claim"; token: number; workerId: string; attempts: number }
  | {
      kind: "settle";
      end: End;
      written: Settlement["status"];
      token: number;
      place: number;
      due: number;
      answer: SettleResult;
    }
  | { kind: "touch"; token: number; answer: boolean }
  | { kind: "abort"; answer: AbortAnswer | null }
  | { kind: "retry"; answer: RetryAnswer | null }
  | { kind: "lose" }
  | { kind: "sweep" }
  // Storage tells nobody what it has deleted: it may have been, and `gone` says that a look found no row.
  | { kind: "expire"; gone: boolean }
);

/** How a worker ends an attempt. */
export type End = "complete" | "threw" | "shutdown" | "release" | "aborted";

export const lostLimit = 3;

const isTerminal = (job: ModelJob) =>
  job.status === "complete" || job.status === "failed" || job.status === "aborted";
const isRunning = (job: ModelJob) => job.status === "active" || job.status === "aborting";

/** The group in which storage has it: from its second loss on a job without one is in the group of those that run alone. */
export const groupOf = ({ group, lost }: ModelJob): string | null =>
  group ?? (lost >= 2 ? "saq:alone" : null);

/** The job afterwards, null when its row is gone; a text says why it cannot have been so. */
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
      if (lost > lostLimit)
        return {
          ...job,
          token: null,
          status: "failed",
          lost,
          error: `worker lost: ${lost} workers died while they ran this job, the last 2 of them while it ran alone`,
        };
      return { ...job, ...waiting("worker lost", event.now), lost, held: true, attempts: job.attempts - 1 };
    }
    case "sweep":
      if (!job || !isRunning(job) || !job.overdue || job.timeout === 0)
        return "was swept without being stuck";
      if (job.status === "aborting") return swept({ ...job, status: "aborted" });
      if (job.attempts >= job.retries) return swept({ ...job, status: "aborted", error: "swept" });
      return { ...job, ...waiting("swept", later(event.now, job.retryDelay)) };
    case "expire":
      return job && isTerminal(job) && job.expired ? null : "was deleted before its time";
  }
}

function enqueued(held: ModelJob | null, { job, answer }: Event & { kind: "enqueue" }): ModelJob | string {
  const may: (typeof answer)[] = [];
  if (held === null) may.push("stored");
  else if (!isTerminal(held)) may.push("key_alive");
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
  // A row that is gone was deleted by an end like this one, or by somebody else.
  if (job === null) return answer === "aborted" ? "answered aborted without a row" : null;
  if (job.token !== token) {
    // Waiting at its old place: this very end has put it there, the answer got lost.
    const isBack = written === "queued" && job.status === "queued" && job.token === event.place;
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
    case "threw":
      if (job.attempts >= job.retries)
        return expect("applied", kept({ ...job, status: "failed", error: "boom" }));
      return expect("applied", {
        ...job,
        ...waiting("boom", later(event.now, job.retryDelay)),
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
/** A delay is rounded up, no delay is now (D-30). */
const later = (now: Span, delay: number): Span =>
  delay > 0 ? { from: now.from + delay, to: now.to + delay + 1 } : now;
/** J-16: a negative ttl keeps nothing. */
const kept = (job: ModelJob): ModelJob | null => (job.ttl < 0 ? null : { ...job, expired: false });
/** Its row has a fresh token: the worker that held it must not change what is stored under its key later. */
const swept = (job: ModelJob): ModelJob | null => kept({ ...job, token: null });
const waiting = (error: string | null, scheduled: Span) => ({
  status: "queued" as const,
  error,
  scheduled,
  asked: scheduled,
  overdue: false,
  // A fresh one, where the claim's own place is not given back.
  token: null,
});

/**
 * Some order of the events that leads from `job` to the row that is there. Statements of several clients at once are
 * right when each row could have come out so one after the other.
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
