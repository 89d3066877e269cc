/** Cron by brute force: every minute of some days, as the operating system's time zones have it. Slow, and plain to see. */

/** A wall clock's reading at one minute. Weekday 0 is Sunday. */
interface Reading {
  /** Epoch s. */
  at: number;
  day: string;
  minute: number;
  hour: number;
  dayOfMonth: number;
  month: number;
  weekday: number;
}

const weekdays = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/** The wall clock's reading at every minute from one time (epoch s, a whole minute) on. */
export function readClock(timezone: string, from: number, days: number): Reading[] {
  const format = new Intl.DateTimeFormat("en-US", {
    timeZone: timezone,
    hourCycle: "h23",
    year: "numeric",
    month: "numeric",
    day: "numeric",
    hour: "numeric",
    minute: "numeric",
    weekday: "short",
  });
  return Array.from({ length: days * 24 * 60 }, (_, index) => {
    const at = from + index * 60;
    const parts = new Map(format.formatToParts(at * 1_000).map(({ type, value }) => [type, value]));
    const number = (type: Intl.DateTimeFormatPartTypes) => Number(parts.get(type));
    return {
      at,
      day: `${parts.get("year")}-${parts.get("month")}-${parts.get("day")}`,
      minute: number("minute"),
      hour: number("hour"),
      dayOfMonth: number("day"),
      month: number("month"),
      weekday: weekdays.indexOf(parts.get("weekday") ?? ""),
    };
  });
}

/** An expression of five fields with numbers, lists, ranges and steps only, taken apart. */
function take(field: string, from: number, to: number): Set<number> {
  const values = field.split(",").flatMap((part) => {
    const [range = "", step = "1"] = part.split("/");
    const [low, high] = range === "*" ? [from, to] : range.split("-").map(Number);
    const end = high ?? (part.includes("/") ? to : low);
    return Array.from({ length: to + 1 }, (_, value) => value).filter(
      (value) => value >= Number(low) && value <= Number(end) && (value - Number(low)) % Number(step) === 0,
    );
  });
  return new Set(values);
}

/** Every run among these minutes, epoch s, by the rule of D-59. */
export function runsAmong(clock: readonly Reading[], expression: string): number[] {
  const [minuteField = "", hourField = "", dayField = "", monthField = "", weekdayField = ""] =
    expression.split(" ");
  const [minutes, hours] = [take(minuteField, 0, 59), take(hourField, 0, 23)];
  const [days, months] = [take(dayField, 1, 31), take(monthField, 1, 12)];
  const weekdaysTaken = new Set([...take(weekdayField, 0, 7)].map((value) => value % 7));
  const isDay = (reading: Reading) => {
    const [byDay, byWeekday] = [days.has(reading.dayOfMonth), weekdaysTaken.has(reading.weekday)];
    // A full field beside one with a `*` is one, as croniter has it.
    const isStar = (field: string, other: string, isFull: boolean) =>
      field === "*" || (isFull && other.includes("*"));
    const either =
      !isStar(dayField, weekdayField, days.size === 31) &&
      !isStar(weekdayField, dayField, weekdaysTaken.size === 7);
    return months.has(reading.month) && (either ? byDay || byWeekday : byDay && byWeekday);
  };
  const chosen = clock.filter(isDay);
  if (minuteField.includes("*") || hourField.includes("*")) {
    return chosen
      .filter((reading) => minutes.has(reading.minute) && hours.has(reading.hour))
      .map(({ at }) => at);
  }
  const runs = new Set<number>();
  for (const day of new Set(chosen.map((reading) => reading.day))) {
    const readings = chosen.filter((reading) => reading.day === day);
    for (const hour of hours) {
      for (const minute of minutes) {
        const first = readings.find((reading) => reading.hour === hour && reading.minute === minute);
        // A time that this day does not have: the first moment after the jump.
        const after = readings.find((reading) => reading.hour * 60 + reading.minute > hour * 60 + minute);
        const run = first ?? after;
        if (run) runs.add(run.at);
      }
    }
  }
  return [...runs].sort((a, b) => a - b);
}
