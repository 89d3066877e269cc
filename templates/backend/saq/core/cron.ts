/**
 * Cron expressions as SAQ reads them: minute hour day month weekday, and the seconds **last** if there are six fields.
 * Other libraries put the seconds first, read `?`, `W` or a year, and accept expressions that never match. This module
 * therefore reads the text itself, with errors that say what is wrong; croner only searches the calendar.
 *
 * Daylight saving: an entry with fixed times runs once for each of them. If the hour is repeated, it runs the first
 * time; if the hour is skipped, it runs at the first moment after that hour. An entry with `*` in its seconds, minutes
 * or hours follows real time: it does not run in an hour that is skipped, and runs twice in an hour that is repeated.
 */
import { Cron as Croner } from "croner";
import { ConfigError } from "../errors.js";

const nicknames: Readonly<Record<string, string>> = {
  "@hourly": "0 * * * *",
  "@daily": "0 0 * * *",
  "@midnight": "0 0 * * *",
  "@weekly": "0 0 * * 0",
  "@monthly": "0 0 1 * *",
  "@yearly": "0 0 1 1 *",
  "@annually": "0 0 1 1 *",
};

interface Field {
  readonly name: string;
  readonly from: number;
  readonly to: number;
  readonly words?: readonly string[];
}

const seconds: Field = { name: "second", from: 0, to: 59 };
const minutes: Field = { name: "minute", from: 0, to: 59 };
const hours: Field = { name: "hour", from: 0, to: 23 };
const days: Field = { name: "day", from: 1, to: 31 };
const months: Field = {
  name: "month",
  from: 1,
  to: 12,
  words: ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const weekdays: Field = {
  name: "weekday",
  from: 0,
  to: 7,
  words: ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/** An expression that does not match for this long is a mistake. */
const horizonYears = 5;
const horizonSeconds = horizonYears * 366 * 24 * 3600;

/** A cron expression in a time zone. Times are epoch s. */
export class Cron {
  readonly text: string;
  readonly timezone: string;
  readonly #croner: Croner;

  /** @throws ConfigError that begins with `Cron is invalid` and the text, or that names the unknown time zone */
  constructor(text: string, timezone: string) {
    this.text = text;
    this.timezone = checkZone(timezone);
    this.#croner = new Croner(asCroner(text), { timezone, mode: "6-part", fixedTimeRule: "no-wildcard" });
    const now = Date.now() / 1_000;
    const next = this.next(now);
    if (next === null || next > now + horizonSeconds) {
      throw invalid(text, `it has no run in the next ${horizonYears} years; choose days that exist`);
    }
  }

  /** Returns the first run strictly after `after`, or null if there is none. */
  next(after: number): number | null {
    return asSecond(this.#croner.nextRun(new Date(after * 1_000)));
  }

  /** Returns the last run at or before `until`, or null if there is none. */
  previous(until: number): number | null {
    const second = Math.floor(until);
    return this.isRun(second) ? second : asSecond(this.#croner.previousRuns(1, new Date(second * 1_000))[0]);
  }

  /** True if the entry runs at this second. */
  isRun(second: number): boolean {
    return this.next(second - 1) === second;
  }
}

const asSecond = (date: Date | null | undefined): number | null => (date ? date.getTime() / 1_000 : null);

const invalid = (text: unknown, why: string): ConfigError =>
  new ConfigError(`Cron is invalid ${String(text)}: ${why}`);

/** Returns the time zone. @throws ConfigError if it is unknown */
export function checkZone(timezone: string): string {
  // The default always exists. Skip the check: loading the tables of time zones takes 15 ms of every start.
  if (timezone === "UTC") return timezone;
  try {
    new Intl.DateTimeFormat("en", { timeZone: timezone });
    return timezone;
  } catch {
    throw new ConfigError(
      `timezone must be an IANA name, for instance "UTC" or "Europe/Rome", got ${JSON.stringify(timezone)}`,
    );
  }
}

/** Returns the expression for croner: six fields with the seconds first, in numbers. */
function asCroner(text: string): string {
  if (typeof text !== "string") throw invalid(text, `it must be a text, for instance "0 3 * * *"`);
  const trimmed = text.trim().toLowerCase();
  if (trimmed.startsWith("@") && !Object.hasOwn(nicknames, trimmed)) {
    throw invalid(text, `there is no ${trimmed} (known: ${Object.keys(nicknames).join(", ")})`);
  }
  const parts = (nicknames[trimmed] ?? trimmed).split(/\s+/);
  const [minute = "", hour = "", day = "", month = "", weekday = "", second = "0", ...more] = parts;
  if (weekday === "" || more.length > 0) {
    throw invalid(
      text,
      `it has ${trimmed === "" ? 0 : parts.length} fields; 5 are allowed (minute hour day month weekday), ` +
        "or 6 with the seconds last",
    );
  }
  const [dayList, weekdayList] = [readDayField(text, day), readWeekdayField(text, weekday)];
  return [
    readField(text, seconds, second),
    readField(text, minutes, minute),
    readField(text, hours, hour),
    weekday.includes("*") && isFull(days, dayList) ? "*" : dayList,
    readField(text, months, month),
    day.includes("*") && isFull(weekdays, weekdayList) ? "*" : weekdayList,
  ].join(" ");
}

/**
 * True if the day or weekday field contains all its values. Such a field restricts nothing if the other field contains
 * a `*`, as in croniter since 2.0.4: `0 9 *\/2 * 0-6` runs every second day. It does not run on each day that matches
 * one of the two fields, which would be every day.
 */
function isFull(field: Field, fieldText: string): boolean {
  const values = new Set<number>();
  const { to, size } = valuesOf(field);
  for (const part of fieldText.split(",")) {
    const [, step] = part.split("/");
    if (!part.startsWith("*")) values.add(Number(part));
    else for (let value = field.from; value <= to; value += Number(step ?? 1)) values.add(value);
  }
  return values.size === size && ![...values].some(Number.isNaN);
}

/** Range of the values of a field without duplicates: weekday 7 is Sunday, as 0 is. */
function valuesOf(field: Field): { to: number; size: number } {
  const to = field === weekdays ? 6 : field.to;
  return { to, size: to - field.from + 1 };
}

function readField(text: string, field: Field, fieldText: string): string {
  // As in croniter, which reads `?` in these two fields only.
  if (fieldText === "?" && (field === days || field === weekdays)) return "*";
  const parts = fieldText.split(",").map((part) => readPart(text, field, part));
  // If a weekday is given, `*` does not choose all days, and neither does a list that contains `*`.
  return parts.includes("*") ? "*" : parts.join(",");
}

/** Reads the day field. `L` is the last day of the month, alone or in a list. */
function readDayField(text: string, fieldText: string): string {
  const parts = fieldText.split(",");
  const others = parts.filter((part) => part !== "l");
  if (others.length === parts.length) return readField(text, days, fieldText);
  if (others.length === 0) return "L";
  return `${readField(text, days, others.join(","))},L`;
}

/**
 * Reads the weekday field. `5#2` is the second Friday of the month, `L5` the last one; not in a list with plain
 * weekdays.
 */
function readWeekdayField(text: string, fieldText: string): string {
  const parts = fieldText.split(",");
  const special = parts.flatMap((part) => {
    const nth = /^([^#]+)#([1-5])$/.exec(part);
    if (nth) return [`${readWeekday(text, nth[1] ?? "")}#${nth[2]}`];
    if (part.includes("#"))
      throw invalid(text, `weekday ${part}: the number after # must be 1 to 5, as in 5#2, the second Friday`);
    return part.length > 1 && part.startsWith("l") ? [`${readWeekday(text, part.slice(1))}L`] : [];
  });
  if (special.length === 0) return readField(text, weekdays, fieldText);
  if (special.length < parts.length) {
    throw invalid(
      text,
      `weekday ${fieldText} mixes weekdays of every week with ones such as 5#2 or L5; make two entries`,
    );
  }
  return special.join(",");
}

const readWeekday = (text: string, word: string): number => readValue(text, weekdays, word) % 7;

/**
 * Expands one part of a list. A part with `*` is returned as it is: by the `*`, croner tells fixed times from others.
 */
function readPart(text: string, field: Field, part: string): string {
  const [range = "", step, ...more] = part.split("/");
  const { to: last, size } = valuesOf(field);
  const stepSize = step === undefined ? 1 : Number(/^\d+$/.test(step) ? step : Number.NaN);
  if (more.length > 0 || !(stepSize >= 1 && stepSize <= size)) {
    throw invalid(text, `${field.name} ${part}: a step must be a whole number of 1 to ${size}, as in */5`);
  }
  if (range === "*") return part;
  const [low = "", high, ...rest] = range.split("-");
  const from = readValue(text, field, low);
  // SAQ reads 5/15 as "from 5 on, every 15".
  const to = high === undefined ? (step === undefined ? from : last) : readValue(text, field, high);
  if (rest.length > 0) throw invalid(text, `${field.name} ${part}: a range must have two values, as in 1-5`);
  if (high !== undefined) checkRange(text, field, { part, from, to, step });
  // Ranges such as 22-4 and fri-mon wrap around the end of the day or the week.
  const values =
    from <= to
      ? rangeOf(from, to, stepSize)
      : [...rangeOf(from, last, stepSize), ...rangeOf(field.from, to, stepSize)];
  return [...new Set(values.map((value) => (field === weekdays ? value % 7 : value)))].join(",");
}

/** Refuses ranges that SAQ's croniter reads in a way that nobody means. */
function checkRange(
  text: string,
  field: Field,
  { part, from, to, step }: { part: string; from: number; to: number; step: string | undefined },
): void {
  const isSame = field === weekdays ? from % 7 === to % 7 && to - from !== 7 : from === to;
  if (isSame)
    throw invalid(
      text,
      `${field.name} ${part}: SAQ reads a range of one value as all values; write ${from}, or *`,
    );
  if (to < from && step !== undefined)
    throw invalid(
      text,
      `${field.name} ${part}: a range with a step must go upwards; write its values as a list`,
    );
}

const rangeOf = (from: number, to: number, step: number): number[] =>
  Array.from({ length: Math.max(Math.floor((to - from) / step) + 1, 0) }, (_, index) => from + index * step);

function readValue(text: string, field: Field, word: string): number {
  const named = field.words?.indexOf(word) ?? -1;
  const value = named >= 0 ? named + field.from : /^\d+$/.test(word) ? Number(word) : -1;
  if (value >= field.from && value <= field.to) return value;
  const names = field.words ? ` or ${field.words[0]} to ${field.words.at(-1)}` : "";
  throw invalid(
    text,
    `${field.name} ${word === "" ? "is empty" : `"${word}" is not allowed`}; use ${field.from} to ${field.to}${names}`,
  );
}
