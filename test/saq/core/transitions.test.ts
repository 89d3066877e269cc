import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import {
  type JobFields,
  jobDefaults,
  retryDelaySeconds,
  type Status,
  statuses,
} from "../../../templates/backend/saq/core/job.js";
import type { StoredJob } from "../../../templates/backend/saq/core/stored-job.js";
import { read } from "../../../templates/backend/saq/core/stored-job.js";
import type { RowChange } from "../../../templates/backend/saq/core/transitions.js";
import {
  abortJob,
  deleteJob,
  keepSeconds,
  loseJob,
  retryDue,
  retryJob,
  runJobNow,
  sweepJob,
  updateJob,
} from "../../../templates/backend/saq/core/transitions.js";
import { decodeJob, editDocument, encodeJob } from "../../../templates/backend/saq/core/wire.js";
import { pythonComplaints } from "../support/golden-documents.js";

const now = 1_795_303_141_785;
const week = 604_800;

const fields = (given: Partial<JobFields>): JobFields => ({
  ...jobDefaults,
  function: "ok",
  queueName: "default",
  key: "k1",
  meta: {},
  ...given,
});

const row = (given: Partial<JobFields>): StoredJob => {
  const job = fields(given);
  return {
    key: job.key,
    queue: "default",
    status: job.status,
    scheduled: job.scheduled,
    document: encodeJob(job),
  };
};

/** Returns the job after a change, as the next reader decodes it. */
function changed(before: StoredJob, change: RowChange | null): JobFields {
  if (!change || change.patch === null) throw new Error("expected a change of the document");
  const text = editDocument(before.document, change.patch, change.removed);
  expect(pythonComplaints(text, "default")).toEqual([]);
  const job = decodeJob(text, "default", change.status);
  // V-4: the row and the document have the same status.
  expect(JSON.parse(text).status).toBe(change.status);
  return job;
}

describe("abort", () => {
  it("V-5.10: a queued job ends at once", () => {
    const before = row({ status: "queued", result: 1, ttl: 60 });
    const { change, answer } = abortJob(before, "nope", now, week);
    expect(answer).toBe("aborted");
    expect(change?.keep).toBe(60);
    expect(changed(before, change)).toMatchObject({
      status: "aborted",
      error: "nope",
      result: null,
      completed: now,
      touched: now,
    });
  });

  it("V-5.11: a running job becomes aborting and keeps its other fields", () => {
    const before = row({ status: "active", attempts: 1, started: 5, workerId: "w" });
    const { change, answer } = abortJob(before, "nope", now, week);
    expect(answer).toBe("aborting");
    expect(changed(before, change)).toMatchObject({
      status: "aborting",
      error: "nope",
      attempts: 1,
      started: 5,
      workerId: "w",
      completed: 0,
    });
  });

  it.each(["complete", "failed", "aborted"] as const)("D-23: a %s job stays as it is", (status) => {
    expect(abortJob(row({ status }), "nope", now, week)).toEqual({ change: null, answer: "not_active" });
  });

  it("D-31: sets the future time of a job to 0 so that its key is free again, except for cron jobs", () => {
    const scheduled = now / 1000 + 3600;
    expect(abortJob(row({ status: "queued", scheduled }), "", now, week).change?.scheduled).toBe(0);
    expect(
      abortJob(row({ status: "queued", scheduled, key: "cron:x" }), "", now, week).change?.scheduled,
    ).toBe(scheduled);
  });
});

describe("a manual retry", () => {
  it.each(["complete", "failed", "aborted"] as const)("D-26: queues a %s job again", (status) => {
    const before = row({ status, attempts: 3, retries: 3, result: 1, error: "e", completed: 5, started: 4 });
    const { change, answer } = retryJob(before, "retried from ui", now, true);
    expect(answer).toBe("queued");
    expect(change).toMatchObject({ keep: null, scheduled: Math.floor(now / 1000) });
    expect(changed(before, change)).toMatchObject({
      status: "queued",
      attempts: 0,
      result: null,
      error: "retried from ui",
      completed: 0,
      started: 0,
    });
    expect(changed(before, retryJob(before, "", now, false).change).attempts).toBe(3);
  });

  it("D-26: resets the counts of losses, cancellations and refusals, and keeps the rest of the meta", () => {
    const meta = { lost: 4, cancellations: 1, unknownTask: 60, tenant: 7 };
    const before = row({ status: "failed", attempts: 1, meta });
    expect(changed(before, retryJob(before, "", now, true).change).meta).toEqual({ tenant: 7 });
    expect(changed(before, retryJob(before, "", now, false).change).meta).toEqual(meta);
    const large = row({ status: "failed", meta: { id: 1 } });
    expect(retryJob(large, "", now, true).change?.patch).not.toContain("meta");
  });

  it("keeps the history of failed attempts, and resets the count of snoozes", () => {
    const meta = { snoozes: 3, attemptHistory: [{ attempt: 1 }] };
    const before = row({ status: "failed", attempts: 1, meta });
    const { attemptHistory } = meta;
    expect(changed(before, retryJob(before, "", now, true).change).meta).toEqual({ attemptHistory });
  });

  it.each(["new", "queued", "active", "aborting"] as const)("D-26: refuses a job that is %s", (status) => {
    expect(retryJob(row({ status }), "", now, true)).toEqual({ change: null, answer: "not_finished" });
  });
});

describe("a job of a lost worker", () => {
  const running = { status: "active", attempts: 1, started: 5, workerId: "w" } as const;

  it("is queued again three times without using one of its `retries`, and then fails", () => {
    let before = row({ ...running, retries: 1 });
    for (const lost of [1, 2, 3]) {
      const job = changed(before, loseJob(before, now, 3, week));
      expect(job).toMatchObject({ status: "queued", attempts: 0, error: "worker lost", meta: { lost } });
      before = row({ ...job, ...running, attempts: 1 });
    }
    const change = loseJob(before, now, 3, week);
    expect(change.keep).toBe(week);
    expect(changed(before, change)).toMatchObject({
      status: "failed",
      error: "worker lost: 4 workers died while they ran this job, the last 2 of them while it ran alone",
    });
  });

  it("runs alone from its second loss on, and with other jobs again after a manual retry", () => {
    const alone = (lost: unknown, limit = 3) =>
      loseJob(row({ ...running, meta: { lost } }), now, limit, week).alone;
    expect([alone(0), alone(1), alone(2)]).toEqual([undefined, true, true]);
    expect(loseJob(row({ ...running }), now, 1, week).alone).toBe(true);
    const failed = row({ status: "failed", meta: { lost: 4 } });
    expect(retryJob(failed, "", now, true).change?.alone).toBe(false);
    expect(retryJob(failed, "", now, false).change?.alone).toBeUndefined();
  });

  it("is queued again unchanged if it was only claimed; the loss is marked but not counted", () => {
    const before = row({ ...running, scheduled: 77, error: "first try" });
    const change = loseJob(before, now, 3, week, false);
    expect(change.alone).toBeUndefined();
    expect(change.scheduled).toBe(77);
    expect(changed(before, change)).toMatchObject({
      status: "queued",
      attempts: 0,
      error: "first try",
      meta: { lost: 0 },
    });
    const counted = row({ ...running, meta: { lost: 2 } });
    expect(changed(counted, loseJob(counted, now, 3, week, false)).meta).toEqual({ lost: 2 });
  });

  it("has the run in its history, unless it was only claimed or was to be aborted", () => {
    const given = { ...running, started: now - 3_000, attempts: 2 };
    const entry = { time: now, attempt: 2, workerId: "w", duration: 3_000, error: "worker lost" };
    const historyAfter = (job: Partial<JobFields>, wasStarted: boolean) =>
      changed(row(job), loseJob(row(job), now, 3, week, wasStarted)).meta.attemptHistory;
    expect(historyAfter(given, true)).toEqual([entry]);
    expect(historyAfter(given, false)).toBeUndefined();
    expect(historyAfter({ ...given, status: "aborting" }, true)).toBeUndefined();
    const last = row({ ...given, meta: { lost: 3, attemptHistory: [entry] } });
    expect(changed(last, loseJob(last, now, 3, week)).meta.attemptHistory).toEqual([
      entry,
      { ...entry, error: expect.stringMatching(/^worker lost: 4 workers died/) },
    ]);
    const small = loseJob(last, now, 3, week, true, 100);
    expect(changed(last, small).meta).toEqual({ lost: 4 });
  });

  it("V-5.12: is aborted when its abort was requested", () => {
    const before = row({ ...running, status: "aborting", error: "nope" });
    expect(changed(before, loseJob(before, now, 3, week))).toMatchObject({
      status: "aborted",
      error: "nope",
    });
  });

  it("restarts its count of losses when `lost` is not a number", () => {
    const before = row({ ...running, meta: { lost: "x" } });
    expect(changed(before, loseJob(before, now, 3, week)).meta).toMatchObject({ lost: 1 });
  });
});

describe("a sweep", () => {
  const stuck = { status: "active", timeout: 10, started: now - 60_000 } as const;

  it("V-5.13: queues a stuck job again while it has attempts left, and otherwise aborts it", () => {
    const again = row({ ...stuck, retries: 2, attempts: 1 });
    expect(changed(again, sweepJob(again, now, 5, week))).toMatchObject({ status: "queued", error: "swept" });
    const last = row({ ...stuck, retries: 1, attempts: 1 });
    expect(changed(last, sweepJob(last, now, 5, week))).toMatchObject({ status: "aborted", error: "swept" });
  });

  it("adds the run of a stuck job to its history, unless its abort was requested", () => {
    const entry = { time: now, attempt: 1, workerId: "w", duration: 60_000, error: "swept" };
    const historyAfter = (given: Partial<JobFields>) => {
      const before = row({ ...stuck, attempts: 1, workerId: "w", ...given });
      return changed(before, sweepJob(before, now, 5, week)).meta.attemptHistory;
    };
    expect([historyAfter({ retries: 2 }), historyAfter({ retries: 1 })]).toEqual([[entry], [entry]]);
    expect(historyAfter({ status: "aborting" })).toBeUndefined();
  });

  it("D-24: does not change a job that is not stuck", () => {
    expect(sweepJob(row({ ...stuck, started: now - 14_000 }), now, 5, week)).toBeNull();
  });

  it("J-20: uses the limits from the start of the run, also when they were changed twice since then", () => {
    const started = now - 60_000;
    const begun = row({
      status: "active",
      timeout: 300,
      heartbeat: 200,
      started,
      retries: 9,
      meta: { a: 1 },
    });
    const update = (before: StoredJob, change: Parameters<typeof updateJob>[1]): StoredJob => {
      const job = changed(before, updateJob(before, change, started).change);
      return { ...before, document: encodeJob(job) };
    };
    const updated = update(update(begun, { timeout: 1, meta: { b: 2 } }), { timeout: 2, heartbeat: 1 });
    expect(read(updated)).toMatchObject({ timeout: 2, heartbeat: 1, meta: { b: 2 } });
    expect(sweepJob(updated, started + 204_000, 5, week)).toBeNull();
    expect(sweepJob(updated, started + 206_000, 5, week)).toMatchObject({ status: "queued" });
    // The next run has the limits that were set last.
    const next = {
      ...updated,
      document: encodeJob({ ...fields(read(updated) ?? {}), started: started + 1 }),
    };
    expect(sweepJob(next, started + 8_000, 5, week)).toMatchObject({ status: "queued" });
    expect(sweepJob(next, started + 5_500, 5, week)).toBeNull();
  });

  it("J-20: uses the limits of the run, also if a new meta has those of the previous run", () => {
    const started = now - 60_000;
    const begun = row({ status: "active", timeout: 300, started, retries: 9, meta: { runLimits: "1 5 5" } });
    const update = (before: StoredJob, change: Parameters<typeof updateJob>[1]): StoredJob => {
      const job = changed(before, updateJob(before, change, started).change);
      return { ...before, document: encodeJob(job) };
    };
    const handle = read(begun);
    const updated = update(update(begun, { timeout: 1 }), { meta: { ...handle?.meta, step: 2 } });
    expect(read(updated)?.meta).toEqual({ runLimits: `${started} 300 0`, step: 2 });
    expect(sweepJob(updated, started + 304_000, 5, week)).toBeNull();
    expect(sweepJob(updated, started + 306_000, 5, week)).toMatchObject({ status: "queued" });
  });

  it("J-20: ignores invalid `runLimits` in the user's meta", () => {
    for (const runLimits of [null, 1, "", "0", `${stuck.started} x y`, {}, [stuck.started, 600, 0]]) {
      const before = row({ ...stuck, retries: 2, meta: { runLimits } });
      expect(sweepJob(before, now, 5, week)).toMatchObject({ status: "queued" });
    }
  });

  it("D-25: never queues an aborting job again", () => {
    const before = row({ ...stuck, status: "aborting", retries: 5, attempts: 1, error: "nope" });
    expect(changed(before, sweepJob(before, now, 5, week))).toMatchObject({
      status: "aborted",
      error: "nope",
    });
  });
});

describe("the retention time of a finished job", () => {
  it("J-16: is ttl seconds; 0 means for ever, and a negative ttl means not at all", () => {
    expect([600, 0, -1, -5].map((ttl) => keepSeconds(ttl, "complete", week))).toEqual([600, null, -1, -1]);
  });

  it("D-83: is at least failedTtl for a failed job, unless its ttl is negative", () => {
    expect([60, week + 1, 0, -1].map((ttl) => keepSeconds(ttl, "failed", week))).toEqual([
      week,
      week + 1,
      null,
      -1,
    ]);
  });

  it("is a whole number of seconds that fits a bigint column, for any ttl from Python", () => {
    expect(keepSeconds(1.5, "complete", week)).toBe(2);
    expect(Number.isSafeInteger(keepSeconds(1e300, "complete", week))).toBe(true);
  });
});

describe("the due time of a retry", () => {
  it("D-30: a delay is rounded up to a whole second, and no delay means now", () => {
    expect(retryDue(fields({ retryDelay: 0 }), now)).toBe(1_795_303_141);
    expect(retryDue(fields({ retryDelay: 0.1 }), now)).toBe(1_795_303_142);
    expect(retryDue(fields({ retryDelay: 0.9 }), now)).toBe(1_795_303_143);
    expect(retryDue(fields({ retryDelay: 60 }), now)).toBe(1_795_303_202);
  });

  it("D-30, J-13, J-14: is never before the end of the delay, and less than a second after it", () => {
    const given = fc.record({
      retryDelay: fc.double({ min: 0, max: 1e6, noNaN: true }),
      retryBackoff: fc.oneof(fc.boolean(), fc.double({ min: 0, max: 1e6, noNaN: true })),
      attempts: fc.nat(40),
    });
    const clock = fc.integer({ min: now, max: now + 1e6 });
    const dice = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
    fc.assert(
      fc.property(given, clock, dice, (job, nowMs, random) => {
        const due = retryDue(fields(job), nowMs, () => random);
        const delay = retryDelaySeconds(fields(job), () => random);
        expect(Number.isSafeInteger(due)).toBe(true);
        if (delay === 0) expect(due).toBe(Math.floor(nowMs / 1000));
        else if (nowMs / 1000 + delay < 1e11) {
          expect(due).toBeGreaterThanOrEqual(nowMs / 1000 + delay);
          expect(due).toBeLessThan(nowMs / 1000 + delay + 1);
        } else expect(due).toBe(1e11);
      }),
    );
  });

  it("is a second that fits a bigint column, for any retry delay", () => {
    expect(Number.isSafeInteger(retryDue(fields({ retryDelay: 1e300 }), now))).toBe(true);
  });
});

describe("rows with an unreadable document", () => {
  const poison = (document: string, status: Status = "active"): StoredJob => ({
    ...row({ status }),
    document,
  });

  it("D-3: are read as null", () => {
    for (const text of ["", "{", "[]", '{"function":"ok","queue":"other","key":"k1"}']) {
      expect(read(poison(text))).toBeNull();
    }
  });

  it("D-3: a document with the key of another row is read as null, too", () => {
    expect(read(poison('{"function":"ok","queue":"default","key":"k2"}'))).toBeNull();
  });

  it("D-3: are set aside as failed with their bytes unchanged, and are not retried", () => {
    const aside = { status: "failed", patch: null, removed: [], keep: null };
    expect(loseJob(poison("{"), now, 3, week)).toEqual(aside);
    expect(sweepJob(poison("{"), now, 5, week)).toEqual(aside);
    expect(abortJob(poison("{", "queued"), "", now, week)).toEqual({ change: aside, answer: "aborted" });
    expect(abortJob(poison("{"), "", now, week)).toEqual({ change: aside, answer: "aborted" });
    expect(retryJob(poison("{", "failed"), "", now, true)).toEqual({ change: null, answer: "unreadable" });
  });
});

describe("the state machine", () => {
  /** The transitions that each event may cause (V-5). */
  const legal: Record<string, readonly string[]> = {
    abort: ["new>aborted", "queued>aborted", "active>aborting"],
    retry: ["complete>queued", "failed>queued", "aborted>queued"],
    lose: ["active>queued", "active>failed", "aborting>aborted"],
    sweep: ["active>queued", "active>aborted", "aborting>aborted"],
  };

  it("V-5, V-7: an event causes only the transitions in the table", () => {
    const time = fc.integer({ min: now - 100_000, max: now });
    fc.assert(
      fc.property(
        fc.constantFrom(...statuses),
        fc.constantFrom(...Object.keys(legal)),
        fc.record({
          attempts: fc.nat(4),
          retries: fc.nat(4),
          ttl: fc.integer({ min: -1, max: 1000 }),
          started: time,
          touched: time,
          timeout: fc.option(fc.nat(60)),
          heartbeat: fc.nat(60),
          meta: fc.record({ lost: fc.nat(4) }),
        }),
        (status, event, given) => {
          const before = row({ ...given, status });
          const isRunning = status === "active" || status === "aborting";
          // Brokers pass only running rows to these two functions.
          if ((event === "lose" || event === "sweep") && !isRunning) return;
          const change =
            event === "abort"
              ? abortJob(before, "e", now, week).change
              : event === "retry"
                ? retryJob(before, "e", now, true).change
                : event === "lose"
                  ? loseJob(before, now, 3, week)
                  : sweepJob(before, now, 5, week);
          if (!change) return;
          expect(legal[event]).toContain(`${status}>${change.status}`);
          changed(before, change);
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe("a deletion by hand", () => {
  it.each(["queued", "complete", "failed", "aborted"] as const)("deletes a job that is %s", (status) => {
    const { change, answer } = deleteJob(row({ status }));
    expect(answer).toBe("deleted");
    // The event of a waiting job makes those who wait for it look. Nobody waits for a finished job.
    expect(change).toEqual({
      status: status === "queued" ? "aborted" : status,
      patch: null,
      removed: [],
      keep: -1,
    });
  });

  it.each(["active", "aborting"] as const)("leaves a job that is %s to its worker", (status) => {
    expect(deleteJob(row({ status }))).toEqual({ change: null, answer: "running" });
  });
});

describe("a start by hand before the time", () => {
  const later = Math.floor(now / 1_000) + 60;

  it("makes a waiting job due; nothing else in its document changes", () => {
    const before = row({ status: "queued", scheduled: later, attempts: 1, error: "boom" });
    const { change, answer } = runJobNow(before, now);
    expect(answer).toBe("due");
    expect(change).toMatchObject({ status: "queued", scheduled: Math.floor(now / 1_000) });
    expect(changed(before, change)).toEqual({
      ...fields({ status: "queued", attempts: 1, error: "boom" }),
      scheduled: Math.floor(now / 1_000),
    });
  });

  it.each<[Partial<JobFields>, string]>([
    [{ status: "active", scheduled: later }, "not_waiting"],
    [{ status: "aborting", scheduled: later }, "not_waiting"],
    [{ status: "failed", scheduled: later }, "not_waiting"],
    [{ status: "queued", scheduled: Math.floor(now / 1_000) }, "already_due"],
    [{ status: "queued", scheduled: later, key: "cron:nightly" }, "schedule"],
  ])("changes nothing of %j and returns %s", (given, expected) => {
    expect(runJobNow(row(given), now)).toEqual({ change: null, answer: expected });
  });

  it("starts the retry of a tick, which has had its time", () => {
    const tick = row({ status: "queued", scheduled: later, key: "cron:nightly", attempts: 1 });
    expect(runJobNow(tick, now).answer).toBe("due");
  });

  it("leaves a document that cannot be read", () => {
    const broken = { ...row({ status: "queued", scheduled: later }), document: "{" };
    expect(runJobNow(broken, now)).toEqual({ change: null, answer: "unreadable" });
  });
});
