import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import type { RowChange, StoredJob } from "../../../templates/backend/saq/broker.js";
import {
  type JobFields,
  jobDefaults,
  retryDelaySeconds,
  type Status,
  statuses,
} from "../../../templates/backend/saq/core/job.js";
import {
  abortJob,
  keepSeconds,
  loseJob,
  read,
  retryDue,
  retryJob,
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
    token: 1,
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

  it("V-5.11: a running job is told, and keeps what it has", () => {
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

  it("D-31: the aborted job's future time does not block its key, except for cron entries", () => {
    const scheduled = now / 1000 + 3600;
    expect(abortJob(row({ status: "queued", scheduled }), "", now, week).change?.scheduled).toBe(0);
    expect(
      abortJob(row({ status: "queued", scheduled, key: "cron:x" }), "", now, week).change?.scheduled,
    ).toBe(scheduled);
  });
});

describe("retry by hand", () => {
  it.each(["complete", "failed", "aborted"] as const)("D-26: queues a %s job anew", (status) => {
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

  it("D-26: also counts anew how often it was lost, cancelled and refused, and keeps the rest of its meta", () => {
    const meta = { lost: 4, cancellations: 1, unknownTask: 60, tenant: 7 };
    const before = row({ status: "failed", attempts: 1, meta });
    expect(changed(before, retryJob(before, "", now, true).change).meta).toEqual({ tenant: 7 });
    expect(changed(before, retryJob(before, "", now, false).change).meta).toEqual(meta);
    const large = row({ status: "failed", meta: { id: 1 } });
    expect(retryJob(large, "", now, true).change?.patch).not.toContain("meta");
  });

  it.each(["new", "queued", "active", "aborting"] as const)("D-26: refuses a job that is %s", (status) => {
    expect(retryJob(row({ status }), "", now, true)).toEqual({ change: null, answer: "not_finished" });
  });
});

describe("a lost worker's job", () => {
  const running = { status: "active", attempts: 1, started: 5, workerId: "w" } as const;

  it("goes back uncharged whatever `retries` says, three times", () => {
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

  it("5.2: runs alone from its second loss on, and as any other again when it is retried by hand", () => {
    const alone = (lost: unknown, limit = 3) =>
      loseJob(row({ ...running, meta: { lost } }), now, limit, week).alone;
    expect([alone(0), alone(1), alone(2)]).toEqual([undefined, true, true]);
    expect(loseJob(row({ ...running }), now, 1, week).alone).toBe(true);
    const failed = row({ status: "failed", meta: { lost: 4 } });
    expect(retryJob(failed, "", now, true).change?.alone).toBe(false);
    expect(retryJob(failed, "", now, false).change?.alone).toBeUndefined();
  });

  it("5.2: that was only claimed goes back as it was, uncounted, with a mark", () => {
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

  it("V-5.12: ends aborted when its abort was asked for", () => {
    const before = row({ ...running, status: "aborting", error: "nope" });
    expect(changed(before, loseJob(before, now, 3, week))).toMatchObject({
      status: "aborted",
      error: "nope",
    });
  });

  it("counts anew when `lost` is no number", () => {
    const before = row({ ...running, meta: { lost: "x" } });
    expect(changed(before, loseJob(before, now, 3, week)).meta).toEqual({ lost: 1 });
  });
});

describe("sweep", () => {
  const stuck = { status: "active", timeout: 10, started: now - 60_000 } as const;

  it("V-5.13: a stuck job is tried again while attempts are left, else aborted as swept", () => {
    const again = row({ ...stuck, retries: 2, attempts: 1 });
    expect(changed(again, sweepJob(again, now, 5, week))).toMatchObject({ status: "queued", error: "swept" });
    const last = row({ ...stuck, retries: 1, attempts: 1 });
    expect(changed(last, sweepJob(last, now, 5, week))).toMatchObject({ status: "aborted", error: "swept" });
  });

  it("D-24: a job that is not stuck is left alone", () => {
    expect(sweepJob(row({ ...stuck, started: now - 14_000 }), now, 5, week)).toBeNull();
  });

  it("J-20: by the limits that its run began with, also where others were set twice meanwhile", () => {
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

  it("J-20: a meta of the user's that says anything about limits counts for nothing", () => {
    for (const runLimits of [null, 1, "", "0", `${stuck.started} x y`, {}, [stuck.started, 600, 0]]) {
      const before = row({ ...stuck, retries: 2, meta: { runLimits } });
      expect(sweepJob(before, now, 5, week)).toMatchObject({ status: "queued" });
    }
  });

  it("D-25: an aborted one never runs again", () => {
    const before = row({ ...stuck, status: "aborting", retries: 5, attempts: 1, error: "nope" });
    expect(changed(before, sweepJob(before, now, 5, week))).toMatchObject({
      status: "aborted",
      error: "nope",
    });
  });
});

describe("how long a finished job is kept", () => {
  it("J-16: ttl seconds, for ever at 0, not at all below", () => {
    expect([600, 0, -1, -5].map((ttl) => keepSeconds(ttl, "complete", week))).toEqual([600, null, -1, -1]);
  });

  it("D-83: a failed one for failedTtl at least", () => {
    expect([60, week + 1, 0, -1].map((ttl) => keepSeconds(ttl, "failed", week))).toEqual([
      week,
      week + 1,
      null,
      -1,
    ]);
  });

  it("is whole seconds that a bigint column takes, whatever Python wrote", () => {
    expect(keepSeconds(1.5, "complete", week)).toBe(2);
    expect(Number.isSafeInteger(keepSeconds(1e300, "complete", week))).toBe(true);
  });
});

describe("when a retry is due", () => {
  it("D-30: a delay is rounded up, no delay is now", () => {
    expect(retryDue(fields({ retryDelay: 0 }), now)).toBe(1_795_303_141);
    expect(retryDue(fields({ retryDelay: 0.1 }), now)).toBe(1_795_303_142);
    expect(retryDue(fields({ retryDelay: 0.9 }), now)).toBe(1_795_303_143);
    expect(retryDue(fields({ retryDelay: 60 }), now)).toBe(1_795_303_202);
  });

  it("D-30, J-13, J-14: never before the delay has passed, never a whole second after it", () => {
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

  it("is a second that a bigint column takes, whatever the job says", () => {
    expect(Number.isSafeInteger(retryDue(fields({ retryDelay: 1e300 }), now))).toBe(true);
  });
});

describe("poison rows", () => {
  const poison = (document: string, status: Status = "active"): StoredJob => ({
    ...row({ status }),
    document,
  });

  it("D-3: are not read", () => {
    for (const text of ["", "{", "[]", '{"function":"ok","queue":"other","key":"k1"}']) {
      expect(read(poison(text))).toBeNull();
    }
  });

  it("D-3: a document whose key is another row's is poison, too", () => {
    expect(read(poison('{"function":"ok","queue":"default","key":"k2"}'))).toBeNull();
  });

  it("D-3: are set aside as failed with their bytes untouched, not retried", () => {
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

  it("V-5, V-7: no event makes a step that the table does not name", () => {
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
