import { describe, expect, it } from "@jest/globals";
import { CronExpressionParser } from "cron-parser";
import fc from "fast-check";
import { Cron } from "../../../templates/backend/saq/core/cron.js";
import { ConfigError } from "../../../templates/backend/saq/errors.js";
import { readClock, runsAmong } from "./cron-reference.js";

const epoch = (time: string) => Date.parse(time) / 1_000;
const iso = (second: number | null) => second && new Date(second * 1_000).toISOString().replace(".000Z", "Z");

/** Returns the next `count` runs of an expression after a time. */
function runs(text: string, after: string, count = 3, timezone = "UTC"): (string | 0 | null)[] {
  const cron = new Cron(text, timezone);
  const found: (number | null)[] = [];
  let last: number | null = epoch(after);
  for (let index = 0; index < count && last !== null; index++) {
    last = cron.next(last);
    found.push(last);
  }
  return found.map(iso);
}

describe("the cron parser", () => {
  it("C-1: reads the sixth field as seconds", () => {
    expect(runs("* * * * * */5", "2026-01-01T00:00:01Z")).toEqual([
      "2026-01-01T00:00:05Z",
      "2026-01-01T00:00:10Z",
      "2026-01-01T00:00:15Z",
    ]);
    // Every second of every fifth minute.
    expect(runs("*/5 * * * * *", "2026-01-01T00:00:58Z", 4)).toEqual([
      "2026-01-01T00:00:59Z",
      "2026-01-01T00:05:00Z",
      "2026-01-01T00:05:01Z",
      "2026-01-01T00:05:02Z",
    ]);
  });

  it.each([
    ["10,20 * * * *", "2026-01-01T00:00:00Z", ["2026-01-01T00:10:00Z", "2026-01-01T00:20:00Z"]],
    ["0 3-5 * * *", "2026-01-01T04:00:00Z", ["2026-01-01T05:00:00Z", "2026-01-02T03:00:00Z"]],
    ["0-20/10 3 * * *", "2026-01-01T03:00:00Z", ["2026-01-01T03:10:00Z", "2026-01-01T03:20:00Z"]],
    ["5/25 * * * *", "2026-01-01T00:00:00Z", ["2026-01-01T00:05:00Z", "2026-01-01T00:30:00Z"]],
    ["0 0 1 jan,MAR *", "2026-01-01T00:00:00Z", ["2026-03-01T00:00:00Z", "2027-01-01T00:00:00Z"]],
    ["0 0 1 jan-mar *", "2026-01-15T00:00:00Z", ["2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"]],
    ["0 0 * * sun", "2026-01-01T00:00:00Z", ["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]],
    ["0 0 * * 0", "2026-01-01T00:00:00Z", ["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]],
    ["0 0 * * 7", "2026-01-01T00:00:00Z", ["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]],
    ["0 0 * * sat-7", "2026-01-01T00:00:00Z", ["2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z"]],
    ["0 0 L * *", "2026-01-31T00:00:00Z", ["2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z"]],
    ["0 0 L,15 * *", "2026-01-31T00:00:00Z", ["2026-02-15T00:00:00Z", "2026-02-28T00:00:00Z"]],
    ["0 0 * * 5#2", "2026-01-01T00:00:00Z", ["2026-01-09T00:00:00Z", "2026-02-13T00:00:00Z"]],
    ["0 0 * * fri#1,mon#2", "2026-01-01T00:00:00Z", ["2026-01-02T00:00:00Z", "2026-01-12T00:00:00Z"]],
    ["0 0 * * L5", "2026-01-01T00:00:00Z", ["2026-01-30T00:00:00Z", "2026-02-27T00:00:00Z"]],
    // If day and weekday are both restricted, it runs on days that match either.
    ["0 0 13 * fri", "2026-01-01T00:00:00Z", ["2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z"]],
    ["0 0 13 * 1#1", "2026-01-06T00:00:00Z", ["2026-01-13T00:00:00Z", "2026-02-02T00:00:00Z"]],
    // Ranges that go over the end of the day or of the week.
    ["0 22-1 * * *", "2026-01-01T00:00:00Z", ["2026-01-01T01:00:00Z", "2026-01-01T22:00:00Z"]],
    [
      "0 0 * * FRI-MON",
      "2026-01-01T00:00:00Z",
      [
        "2026-01-02T00:00:00Z",
        "2026-01-03T00:00:00Z",
        "2026-01-04T00:00:00Z",
        "2026-01-05T00:00:00Z",
        "2026-01-09T00:00:00Z",
      ],
    ],
    ["0 0 * * fri-sun", "2026-01-04T00:00:00Z", ["2026-01-09T00:00:00Z", "2026-01-10T00:00:00Z"]],
    ["0 0 ? * 1", "2026-01-01T00:00:00Z", ["2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z"]],
    ["0 0 31 * ?", "2026-01-01T00:00:00Z", ["2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z"]],
    // 2026-01-01 is a Thursday. croniter 6: a field that selects all values is a `*` if the other field contains a `*`.
    [
      "0 9 */2 * */1",
      "2026-01-01T00:00:00Z",
      ["2026-01-01T09:00:00Z", "2026-01-03T09:00:00Z", "2026-01-05T09:00:00Z"],
    ],
    [
      "0 9 */2 * 0-6",
      "2026-01-01T00:00:00Z",
      ["2026-01-01T09:00:00Z", "2026-01-03T09:00:00Z", "2026-01-05T09:00:00Z"],
    ],
    [
      "0 9 1-31 * */2",
      "2026-01-01T00:00:00Z",
      ["2026-01-01T09:00:00Z", "2026-01-03T09:00:00Z", "2026-01-04T09:00:00Z"],
    ],
    [
      "0 9 */1 * */3",
      "2026-01-01T00:00:00Z",
      ["2026-01-03T09:00:00Z", "2026-01-04T09:00:00Z", "2026-01-07T09:00:00Z"],
    ],
    ["0 9 */1 * */1", "2026-01-01T00:00:00Z", ["2026-01-01T09:00:00Z", "2026-01-02T09:00:00Z"]],
    // If the other field contains no `*`, a field that selects all values is no `*`: then it runs on days that match
    // either field. So the first three run daily.
    [
      "0 9 1,15 * 0-6",
      "2026-01-01T00:00:00Z",
      ["2026-01-01T09:00:00Z", "2026-01-02T09:00:00Z", "2026-01-03T09:00:00Z"],
    ],
    [
      "0 9 1-31 * 1-5",
      "2026-01-02T00:00:00Z",
      ["2026-01-02T09:00:00Z", "2026-01-03T09:00:00Z", "2026-01-04T09:00:00Z"],
    ],
    ["0 9 */1 * 1", "2026-01-02T00:00:00Z", ["2026-01-02T09:00:00Z", "2026-01-03T09:00:00Z"]],
    [
      "0 9 */10 * 1",
      "2026-01-02T00:00:00Z",
      ["2026-01-05T09:00:00Z", "2026-01-11T09:00:00Z", "2026-01-12T09:00:00Z"],
    ],
    ["@hourly", "2026-01-01T00:00:00Z", ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"]],
    ["@daily", "2026-01-01T00:00:00Z", ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]],
    ["@midnight", "2026-01-01T00:00:00Z", ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]],
    ["@weekly", "2026-01-01T00:00:00Z", ["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]],
    ["@monthly", "2026-01-01T00:00:00Z", ["2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"]],
    ["@yearly", "2026-01-01T00:00:00Z", ["2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"]],
    ["@Annually", "2026-01-01T00:00:00Z", ["2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z"]],
    ["0 0 29 2 *", "2026-01-01T00:00:00Z", ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z"]],
  ])("C-2: finds the expected runs of %s", (text, after, expected) => {
    expect(runs(text, after, expected.length)).toEqual(expected);
  });

  it.each([
    ["", "it has 0 fields; 5 are allowed (minute hour day month weekday), or 6 with the seconds last"],
    ["0 3 * *", "it has 4 fields; 5 are allowed (minute hour day month weekday), or 6 with the seconds last"],
    [
      "* * * * * * *",
      "it has 7 fields; 5 are allowed (minute hour day month weekday), or 6 with the seconds last",
    ],
    ["60 * * * *", 'minute "60" is not allowed; use 0 to 59'],
    ["* 24 * * *", 'hour "24" is not allowed; use 0 to 23'],
    ["* * 0 * *", 'day "0" is not allowed; use 1 to 31'],
    ["* * * 13 *", 'month "13" is not allowed; use 1 to 12 or jan to dec'],
    ["* * * * 8", 'weekday "8" is not allowed; use 0 to 7 or sun to sat'],
    ["* * * * * 60", 'second "60" is not allowed; use 0 to 59'],
    ["* ? * * *", 'hour "?" is not allowed; use 0 to 23'],
    ["* * 1,? * *", 'day "?" is not allowed; use 1 to 31'],
    ["H * * * *", 'minute "h" is not allowed; use 0 to 59'],
    ["0 0 15W * *", 'day "15w" is not allowed; use 1 to 31'],
    ["0 0 LW * *", 'day "lw" is not allowed; use 1 to 31'],
    ["-1 * * * *", "minute is empty; use 0 to 59"],
    ["1,,2 * * * *", "minute is empty; use 0 to 59"],
    ["22-2/5 * * * *", "minute 22-2/5: a range with a step must go upwards; write its values as a list"],
    ["* 5-5 * * *", "hour 5-5: SAQ reads a range of one value as all values; write 5, or *"],
    ["* * * * 7-0", "weekday 7-0: SAQ reads a range of one value as all values; write 7, or *"],
    ["* * 1w * *", 'day "1w" is not allowed; use 1 to 31'],
    ["1-2-3 * * * *", "minute 1-2-3: a range must have two values, as in 1-5"],
    ["*/0 * * * *", "minute */0: a step must be a whole number of 1 to 60, as in */5"],
    ["*/61 * * * *", "minute */61: a step must be a whole number of 1 to 60, as in */5"],
    ["*/x * * * *", "minute */x: a step must be a whole number of 1 to 60, as in */5"],
    ["* * * * */8", "weekday */8: a step must be a whole number of 1 to 7, as in */5"],
    ["* * * * 5#6", "weekday 5#6: the number after # must be 1 to 5, as in 5#2, the second Friday"],
    [
      "* * * * 1,3#1",
      "weekday 1,3#1 mixes weekdays of every week with ones such as 5#2 or L5; make two entries",
    ],
    [
      "@reboot",
      "there is no @reboot (known: @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually)",
    ],
    ["0 0 31 2 *", "it has no run in the next 5 years; choose days that exist"],
    ["0 0 30 2 *", "it has no run in the next 5 years; choose days that exist"],
  ])("C-2, D-58: refuses %j", (text, why) => {
    const read = () => new Cron(text, "UTC");
    expect(read).toThrow(ConfigError);
    expect(read).toThrow(new ConfigError(`Cron is invalid ${text}: ${why}`));
  });

  it("T-60: refuses a value that is not a text, and an unknown time zone", () => {
    expect(() => new Cron(7 as unknown as string, "UTC")).toThrow("Cron is invalid 7: it must be a text");
    expect(() => new Cron("* * * * *", "Europe/Atlantis")).toThrow(
      'timezone must be an IANA name, for instance "UTC" or "Europe/Rome", got "Europe/Atlantis"',
    );
  });
});

describe("the next run", () => {
  it("C-3: is strictly later than the given time, at a whole second", () => {
    const cron = new Cron("* * * * * *", "UTC");
    const noon = epoch("2026-01-01T12:00:00Z");
    expect([noon, noon + 0.5, noon + 0.999, noon - 0.001].map((after) => cron.next(after))).toEqual([
      noon + 1,
      noon + 1,
      noon + 1,
      noon,
    ]);
  });

  it("T-60: is computed in the entry's time zone", () => {
    expect(runs("0 9 * * *", "2026-01-01T00:00:00Z", 1, "America/New_York")).toEqual([
      "2026-01-01T14:00:00Z",
    ]);
    expect(runs("0 9 * * *", "2026-01-01T00:00:00Z", 1, "Asia/Kolkata")).toEqual(["2026-01-01T03:30:00Z"]);
  });

  it("D-59: a time that a clock change skips runs once, at the first moment after the gap", () => {
    // New York, 8 March 2026: 02:00 becomes 03:00. The run is computed on the day before, as a worker does.
    expect(runs("30 2 * * *", "2026-03-07T08:00:00Z", 2, "America/New_York")).toEqual([
      "2026-03-08T07:00:00Z",
      "2026-03-09T06:30:00Z",
    ]);
    expect(runs("0,15,30 2 * * *", "2026-03-08T05:00:00Z", 2, "America/New_York")).toEqual([
      "2026-03-08T07:00:00Z",
      "2026-03-09T06:00:00Z",
    ]);
    expect(runs("30 1 * * *", "2026-03-08T06:30:00Z", 1, "America/New_York")).toEqual([
      "2026-03-09T05:30:00Z",
    ]);
  });

  it("D-59: a time that a clock change repeats runs only the first time", () => {
    // New York, 1 November 2026: the hour from 01:00 to 02:00 comes twice.
    expect(runs("30 1 * * *", "2026-10-31T20:00:00Z", 2, "America/New_York")).toEqual([
      "2026-11-01T05:30:00Z",
      "2026-11-02T06:30:00Z",
    ]);
    expect(runs("30 2 * * *", "2026-10-31T20:00:00Z", 2, "America/New_York")).toEqual([
      "2026-11-01T07:30:00Z",
      "2026-11-02T07:30:00Z",
    ]);
  });

  it("D-59: an hour field of * runs once in every real hour, also during a clock change", () => {
    expect(runs("30 * * * *", "2026-11-01T05:00:00Z", 3, "America/New_York")).toEqual([
      "2026-11-01T05:30:00Z",
      "2026-11-01T06:30:00Z",
      "2026-11-01T07:30:00Z",
    ]);
    expect(runs("30 * * * *", "2026-03-08T06:00:00Z", 2, "America/New_York")).toEqual([
      "2026-03-08T06:30:00Z",
      "2026-03-08T07:30:00Z",
    ]);
  });
});

const numberIn = (from: number, to: number) => fc.integer({ min: from, max: to });
/** A range of one value (5-5) is left out: it is refused, because SAQ reads it as all values. */
const part = (from: number, to: number) =>
  fc.oneof(
    { weight: 3, arbitrary: numberIn(from, to).map(String) },
    { weight: 1, arbitrary: fc.constant("*") },
    { weight: 1, arbitrary: numberIn(1, to - from).map((step) => `*/${step}`) },
    {
      weight: 2,
      arbitrary: fc
        .tuple(numberIn(from, to), numberIn(from, to), fc.option(numberIn(1, 5)))
        .filter(([a, b]) => a !== b)
        .map(([a, b, step]) => `${Math.min(a, b)}-${Math.max(a, b)}${step === null ? "" : `/${step}`}`),
    },
  );
/** A list with a `*` among its parts is replaced by `*`. */
const list = (from: number, to: number) =>
  fc
    .array(part(from, to), { minLength: 1, maxLength: 3 })
    .map((parts) => (parts.includes("*") ? "*" : parts.join(",")));
const everyOr = (field: fc.Arbitrary<string>) =>
  fc.oneof({ weight: 2, arbitrary: fc.constant("*") }, { weight: 1, arbitrary: field });

/**
 * Zones with different clock changes: Lord Howe by half an hour, Troll by two hours, Beirut and the Azores at midnight.
 */
const zones = [
  "UTC",
  "Europe/Rome",
  "America/New_York",
  "Australia/Lord_Howe",
  "Antarctica/Troll",
  "Atlantic/Azores",
  "Asia/Beirut",
  "America/Nuuk",
  "Africa/Casablanca",
  "Asia/Kolkata",
];

/** Windows of five days around every clock change of 2027 and around New Year. */
const windows = zones.flatMap((timezone) => {
  const year = epoch("2027-01-01T00:00:00Z");
  const offset = (at: number) => {
    const [reading] = readClock(timezone, at, 1 / 1_440);
    return reading ? (reading.hour * 60 + reading.minute) * 60 - (at % 86_400) : 0;
  };
  const changes = Array.from({ length: 365 }, (_, day) => year + day * 86_400).filter(
    (at) => (offset(at) - offset(at + 86_400)) % 86_400 !== 0,
  );
  return [year, ...changes].map((at) => {
    const from = at - 2 * 86_400;
    return { timezone, from, clock: readClock(timezone, from, 5) };
  });
});

describe("the runs, compared with other implementations", () => {
  it("the test windows contain the clock changes", () => {
    expect(windows.filter(({ timezone }) => timezone === "Europe/Rome")).toHaveLength(3);
    expect(windows.length).toBeGreaterThan(zones.length * 2);
  });

  it("D-59: Cron finds the runs that a check of every minute finds, forwards and backwards", () => {
    const expressions = fc
      .tuple(list(0, 59), list(0, 23), everyOr(list(1, 31)), fc.constant("*"), everyOr(list(0, 7)))
      .map((fields) => fields.join(" "));
    fc.assert(
      fc.property(expressions, fc.constantFrom(...windows), (text, { timezone, from, clock }) => {
        const cron = new Cron(text, timezone);
        // The days at both ends of a window may be incomplete, so they are left out.
        const [first, last] = [from + 86_400, from + 4 * 86_400];
        const expected = runsAmong(clock, text).filter((at) => at > first && at <= last);
        const forwards: number[] = [];
        const limit = 300;
        for (
          let at = cron.next(first);
          at !== null && at <= last && forwards.length < limit;
          at = cron.next(at)
        )
          forwards.push(at);
        expect(forwards).toEqual(expected.slice(0, limit));
        const backwards: number[] = [];
        for (
          let at = cron.previous(last);
          at !== null && at > first && backwards.length < 20;
          at = cron.previous(at - 1)
        )
          backwards.push(at);
        expect(backwards).toEqual(expected.slice(-20).reverse());
      }),
      { numRuns: 150 },
    );
  });

  it("C-2: Cron finds the runs that cron-parser finds", () => {
    // cron-parser refuses a list that holds a value twice.
    const list = (from: number, to: number) =>
      fc.oneof(
        part(from, to),
        fc.uniqueArray(numberIn(from, to), { minLength: 2, maxLength: 4 }).map((values) => values.join(",")),
      );
    const month = fc.oneof(list(1, 12), fc.constantFrom("jan", "feb-apr", "DEC"));
    const weekday = fc.oneof(list(0, 6), fc.constantFrom("sun", "mon-fri", "5#2", "0#4", "7", "L5", "fri"));
    const days = fc.oneof(everyOr(list(1, 28)), fc.constant("L"));
    const expressions = fc
      .tuple(list(0, 59), list(0, 23), days, everyOr(month), everyOr(weekday), fc.option(list(0, 59)))
      // If a day and a weekday of the month (5#2, L5) are given, cron-parser requires both, but SAQ's rule is either.
      .filter(([, , day, , week]) => day === "*" || !/[#L]/.test(week))
      .map((fields) => fields.filter((field) => field !== null));
    // Zones whose clocks do not change: at a clock change cron-parser follows another rule than D-59.
    const steady = fc.constantFrom("UTC", "Asia/Kolkata", "Asia/Tokyo", "America/Phoenix");
    const start = numberIn(epoch("2024-01-01T00:00:00Z"), epoch("2030-01-01T00:00:00Z"));
    fc.assert(
      fc.property(expressions, steady, start, (fields, timezone, after) => {
        const [minute, hour, day, month, week = "", second = "0"] = fields;
        const theirs = CronExpressionParser.parse(
          [second, minute, hour, day, month, week.replace(/^L(\d)$/, "$1L")].join(" "),
          { tz: timezone, currentDate: new Date(after * 1_000) },
        );
        const cron = new Cron(fields.join(" "), timezone);
        let last: number | null = after;
        for (let index = 0; index < 3; index++) {
          last = last === null ? null : cron.next(last);
          expect(last).toBe(theirs.next().getTime() / 1_000);
        }
      }),
      { numRuns: 200 },
    );
  });
});
