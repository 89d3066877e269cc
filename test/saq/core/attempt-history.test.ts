/** The history of failed attempts in a job's `meta`: what it keeps, and what it makes of other values there. */
import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import {
  type FailedAttempt,
  failurePatch,
  historyOf,
  withFittingHistory,
} from "../../../templates/backend/saq/core/attempt-history.js";
import type { JobFields } from "../../../templates/backend/saq/core/job.js";
import { withEngineMembers, withoutAttempts } from "../../../templates/backend/saq/core/job-meta.js";

type Meta = JobFields["meta"];

const maxBytes = 1_000_000;
const entry = (attempt: number, error = "boom"): FailedAttempt => ({
  time: 1_000 * attempt,
  attempt,
  workerId: "w",
  duration: 5,
  error,
});
const bytes = (value: unknown) => Buffer.byteLength(JSON.stringify(value));

/** Returns `meta` after a failed attempt, as it is stored. */
function afterFailure(meta: Meta, attempts: number, error = "boom", limit = maxBytes): Meta {
  const failure = { time: 1_000 * attempts, duration: 5, error };
  const patched = { ...meta, ...failurePatch({ meta, attempts, workerId: "w" }, failure, limit) };
  return Object.fromEntries(Object.entries(patched).filter(([, value]) => value !== null));
}

describe("a failed attempt", () => {
  it("is added at the end; the last ten are kept, and the other members of meta stay", () => {
    let meta: Meta = { tenant: 7 };
    for (let attempt = 1; attempt <= 12; attempt++) meta = afterFailure(meta, attempt);
    expect(meta.tenant).toBe(7);
    expect(historyOf({ meta })).toEqual([3, 4, 5, 6, 7, 8, 9, 10, 11, 12].map((attempt) => entry(attempt)));
  });

  it("has whole numbers, also if the clock was set back during the run, and null for an unknown worker", () => {
    const failure = { time: 1_000.6, duration: -3.2, error: "boom" };
    const patch = failurePatch({ meta: {}, attempts: 0, workerId: null }, failure, maxBytes);
    expect(patch).toEqual({
      attemptHistory: [{ time: 1_001, attempt: 1, workerId: null, duration: 0, error: "boom" }],
    });
  });

  it.each([
    ["1,024 bytes are kept", "é".repeat(512), "é".repeat(512)],
    ["a character of two bytes is not cut", `a${"é".repeat(512)}`, `a${"é".repeat(511)}`],
    ["a character of four bytes is not cut", `ab${"😀".repeat(256)}`, `ab${"😀".repeat(255)}`],
    ["a long text", "x".repeat(70_000), "x".repeat(1_024)],
    ["a character is not cut into its two code units", `${"x".repeat(1_023)}😀`, "x".repeat(1_023)],
    ["NUL and half characters are replaced", "a\0\ud800b\udc00", "a??b?"],
  ])("has the beginning of the error: %s", (_, error, kept) => {
    expect(historyOf({ meta: afterFailure({}, 1, error) })).toEqual([entry(1, kept)]);
  });

  it("has an error that is a prefix of at most 1,024 bytes, and as long as it can be", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", minLength: 300, maxLength: 1_500 }), (error) => {
        const text = error.replaceAll("\0", "");
        const [kept] = historyOf({ meta: afterFailure({}, 1, text) }).map((attempt) => attempt.error);
        const rest = text.slice(kept?.length);
        expect(text.startsWith(kept ?? "no")).toBe(true);
        expect(Buffer.byteLength(kept ?? "")).toBeLessThanOrEqual(1_024);
        const [next = ""] = rest;
        if (rest !== "") expect(Buffer.byteLength(`${kept}${next}`)).toBeGreaterThan(1_024);
      }),
    );
  });

  it("leaves out the oldest attempts, and then all, if meta would have more than maxBytes", () => {
    const others = { text: "x".repeat(500) };
    let meta: Meta = others;
    for (let attempt = 1; attempt <= 5; attempt++) meta = afterFailure(meta, attempt, "y".repeat(300), 1_500);
    expect(historyOf({ meta }).map(({ attempt }) => attempt)).toEqual([4, 5]);
    expect(bytes(meta)).toBeLessThanOrEqual(1_500);
    // Exactly as many bytes as there may be, and one more.
    expect(historyOf({ meta: afterFailure(meta, 5, "y".repeat(300), bytes(meta)) })).toHaveLength(2);
    const exact = bytes(afterFailure(others, 1));
    expect(historyOf({ meta: afterFailure(others, 1, "boom", exact) })).toHaveLength(1);
    expect(historyOf({ meta: afterFailure(others, 1, "boom", exact - 1) })).toEqual([]);
    expect(afterFailure(meta, 6, "y".repeat(300), 600)).toEqual(others);
    expect(afterFailure(others, 1, "boom", 510)).toEqual(others);
  });

  it("leaves room in the document for an error that is larger than maxBytes", () => {
    const lengthAfter = (error: string) => historyOf({ meta: afterFailure({}, 1, error, 1_500) }).length;
    expect([lengthAfter("x".repeat(2_998)), lengthAfter("x".repeat(3_400))]).toEqual([1, 0]);
  });

  it("changes nothing if the task has put something into its meta that has no JSON form", () => {
    const circular: Meta = { attemptHistory: [entry(1)] };
    circular.self = circular;
    for (const meta of [circular, { big: 1n }]) {
      const failure = { time: 1, duration: 1, error: "boom" };
      expect(failurePatch({ meta, attempts: 2, workerId: "w" }, failure, maxBytes)).toEqual({});
    }
  });
});

describe("a value that others have stored as the history", () => {
  it.each<[string, unknown]>([
    ["a text", "boom"],
    ["null", null],
    ["an object", { 0: entry(1) }],
    ["other values", [null, 1, "boom", [], {}, { ...entry(1), time: "now" }, { ...entry(1), attempt: -1 }]],
    ["broken entries", [{ ...entry(1), duration: 0.5 }, { ...entry(1), error: 7 }, { time: 1 }]],
  ])("is read as an empty history, and replaced by the next failure: %s", (_, attemptHistory) => {
    expect(historyOf({ meta: { attemptHistory } })).toEqual([]);
    expect(afterFailure({ attemptHistory }, 2)).toEqual({ attemptHistory: [entry(2)] });
  });

  it("is read as far as it is readable: known members only, at most ten entries, bounded texts", () => {
    const stored = Array.from({ length: 30 }, (_, index) => ({
      ...entry(index + 1, "x".repeat(5_000)),
      own: 1,
    }));
    const attemptHistory = ["garbage", ...stored, { ...entry(31), workerId: 7 }];
    const history = historyOf({ meta: { attemptHistory } });
    expect(history).toHaveLength(10);
    expect(history.at(-1)).toEqual({ ...entry(31), workerId: null });
    expect(history[0]).toEqual(entry(22, "x".repeat(1_024)));
  });
});

describe("a new meta", () => {
  const stored: Meta = { old: 1, lost: 2, attemptHistory: [entry(1), entry(2)] };

  it("keeps the stored history, also if it was made from a meta that was read before the last failure", () => {
    expect(withEngineMembers(stored, { step: 2 })).toEqual({
      step: 2,
      lost: 2,
      attemptHistory: stored.attemptHistory,
    });
    const stale = { ...stored, attemptHistory: [entry(1)], step: 2 };
    expect(withEngineMembers(stored, stale)).toEqual({ ...stored, step: 2 });
  });

  it("loses the oldest attempts if it has more than maxBytes with them, and is not refused because of them", () => {
    const own = { text: "x".repeat(100) };
    const meta = withEngineMembers(stored, own);
    expect(withFittingHistory(meta, bytes(meta))).toBe(meta);
    const [, second] = historyOf({ meta });
    expect(withFittingHistory(meta, bytes(meta) - 1)).toEqual({ ...own, lost: 2, attemptHistory: [second] });
    expect(withFittingHistory(meta, 50)).toEqual({ ...own, lost: 2 });
    // A member of that name that is no history is the user's.
    expect(withFittingHistory({ attemptHistory: "mine" }, 100)).toEqual({ attemptHistory: "mine" });
  });

  it("has no history when the job is enqueued again as a new one", () => {
    expect(withoutAttempts(stored)).toEqual({ old: 1 });
  });
});
