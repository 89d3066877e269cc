import { describe, expect, it } from "@jest/globals";
import fc from "fast-check";
import {
  dueSecond,
  inSeconds,
  isRetryable,
  isStuck,
  isTerminal,
  parseStatus,
  retryDelaySeconds,
  type Status,
  statuses,
} from "../../../templates/backend/saq/core/job.js";
import { newKey } from "../../../templates/backend/saq/core/key.js";
import { InvalidJobError } from "../../../templates/backend/saq/errors.js";

describe("status", () => {
  it("V-2, T-80: deferred is read as queued, and an unknown word as null", () => {
    expect(parseStatus("deferred")).toBe("queued");
    expect(parseStatus("ACTIVE")).toBeNull();
    expect(statuses.map(parseStatus)).toEqual([...statuses]);
  });

  it("V-3: complete, failed and aborted are terminal, aborting is not", () => {
    expect(statuses.filter(isTerminal)).toEqual(["aborted", "failed", "complete"]);
  });

  it("J-12: a job is retryable while it has attempts left", () => {
    expect([0, 1, 2, 3].map((attempts) => isRetryable({ retries: 2, attempts }))).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });
});

describe("retry delay", () => {
  const delay = fc.double({ min: 0, max: 1e6, noNaN: true });
  const attempts = fc.nat(5_000);
  const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

  it("J-13, T-89: is exactly retry_delay, without jitter, when backoff is off", () => {
    fc.assert(
      fc.property(delay, attempts, fc.constantFrom(false, 0), random, (retryDelay, n, retryBackoff, r) => {
        expect(retryDelaySeconds({ retryDelay, retryBackoff, attempts: n }, () => r)).toBe(retryDelay);
      }),
    );
  });

  it.each([
    [0, 1],
    [1, 1],
    [2, 2],
    [3, 4],
    [4, 8],
  ])("J-14: after %i attempts it is a random part of %i times retry_delay", (n, factor) => {
    const job = { retryDelay: 1, retryBackoff: true, attempts: n };
    expect(retryDelaySeconds(job, () => 0.5)).toBe(factor * 0.5);
    expect(retryDelaySeconds(job, () => 0)).toBe(0);
  });

  it("J-14, T-90: is capped by a numeric backoff before the random factor applies", () => {
    expect(retryDelaySeconds({ retryDelay: 10, retryBackoff: 30, attempts: 9 }, () => 0.5)).toBe(15);
  });

  it("J-14, T-89, T-91: is finite, not negative, and at most the cap and the doubled delay, for any input", () => {
    fc.assert(
      fc.property(
        delay,
        attempts,
        fc.oneof(fc.constant(true), delay),
        random,
        (retryDelay, n, retryBackoff, r) => {
          const seconds = retryDelaySeconds({ retryDelay, retryBackoff, attempts: n }, () => r);
          expect(Number.isFinite(seconds)).toBe(true);
          expect(seconds).toBeGreaterThanOrEqual(0);
          expect(seconds).toBeLessThanOrEqual(retryDelay * 2 ** Math.min(Math.max(n - 1, 0), 1000));
          if (retryDelay === 0) expect(seconds).toBe(0);
          if (typeof retryBackoff === "number" && retryBackoff > 0)
            expect(seconds).toBeLessThanOrEqual(retryBackoff);
        },
      ),
    );
  });
});

describe("isStuck", () => {
  const running = {
    status: "active" as Status,
    timeout: 10,
    heartbeat: 0,
    started: 100_000,
    touched: 100_000,
  };

  it("J-11, T-86: returns true only after more than the timeout has passed", () => {
    expect(isStuck(running, 110_000)).toBe(false);
    expect(isStuck(running, 110_001)).toBe(true);
    expect(isStuck({ ...running, status: "aborting" }, 110_001)).toBe(true);
  });

  it("J-11: returns true when the last sign of life is older than the heartbeat", () => {
    const job = { ...running, timeout: null, heartbeat: 5, touched: 200_000 };
    expect(isStuck(job, 205_000)).toBe(false);
    expect(isStuck(job, 205_001)).toBe(true);
  });

  it.each([0, null])("J-11, T-86: returns false with timeout %p and heartbeat 0", (timeout) => {
    expect(isStuck({ ...running, timeout }, 1e15)).toBe(false);
  });

  it("J-11, T-86: returns true only for a running job", () => {
    const others = statuses.filter((status) => isStuck({ ...running, status }, 1e15));
    expect(others).toEqual(["active", "aborting"]);
  });

  it("adds the grace time of a living worker to the limit", () => {
    expect(isStuck(running, 116_000, 6)).toBe(false);
    expect(isStuck(running, 116_001, 6)).toBe(true);
  });
});

describe("due second", () => {
  const now = 1_795_303_141_785;

  it("Q-2: takes epoch seconds, a Date and a delay, and rounds up so that no job runs early", () => {
    expect(dueSecond(undefined, now)).toBe(0);
    expect(dueSecond(1_795_303_200, now)).toBe(1_795_303_200);
    expect(dueSecond(1_795_303_200.01, now)).toBe(1_795_303_201);
    expect(dueSecond(new Date(1_795_303_200_001), now)).toBe(1_795_303_201);
    expect(dueSecond(inSeconds(30), now)).toBe(1_795_303_172);
    expect(dueSecond(inSeconds(0.5), now)).toBe(1_795_303_143);
    expect(dueSecond(inSeconds(0), now)).toBe(0);
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY, -1, new Date("no date"), new Date(-1), now])(
    "refuses %p",
    (given) => {
      expect(() => dueSecond(given, now)).toThrow(InvalidJobError);
    },
  );

  it("explains how to correct a time in milliseconds", () => {
    expect(() => dueSecond(now, now)).toThrow(
      "scheduled must be epoch seconds, a Date or inSeconds(n), got 1795303141785 (milliseconds? divide by 1000)",
    );
  });

  it.each([-1, Number.NaN, Number.POSITIVE_INFINITY])("inSeconds refuses %p", (seconds) => {
    expect(() => inSeconds(seconds)).toThrow(
      `inSeconds takes a finite number of seconds >= 0, got ${seconds}`,
    );
  });

  it("refuses a delay that is too large for the database", () => {
    expect(() => dueSecond(inSeconds(1e300), now)).toThrow(InvalidJobError);
  });
});

describe("generated keys", () => {
  it("J-7: are unique and ascending, even with thousands in one millisecond", () => {
    const keys = Array.from({ length: 20_000 }, newKey);
    expect(new Set(keys).size).toBe(keys.length);
    expect(keys.toSorted()).toEqual(keys);
  });

  it("J-7: are UUIDs of version 7, which contain the time and no network address", () => {
    const before = Date.now();
    const key = newKey();
    expect(key).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    const time = Number.parseInt(key.replaceAll("-", "").slice(0, 12), 16);
    // Keys may run ahead of the clock if more of them are made in one millisecond than it has room for.
    expect(time).toBeGreaterThanOrEqual(before);
    expect(time).toBeLessThan(before + 1_000);
  });
});
