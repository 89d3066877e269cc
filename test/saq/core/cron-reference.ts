/**
 * A reference implementation of cron by brute force: it reads the wall clock of every minute of some days with `Intl`.
 * It is slow and easy to check.
 */

/** What a wall clock shows at one minute. Weekday 0 is Sunday. */
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

/** Returns what the wall clock shows at every minute of `days` days, beginning at `from` (epoch s, a whole minute). */
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

/** Returns the values that a field selects. The field may hold only numbers, lists, ranges and steps. */
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

/** Returns the time of every run among these minutes, epoch s, by the rule of D-59. The expression has five fields. */
export function runsAmong(clock: readonly Reading[], expression: string): number[] {
  const [minuteField = "", hourField = "", dayField = "", monthField = "", weekdayField = ""] =
    expression.split(" ");
  const [minutes, hours] = [take(minuteField, 0, 59), take(hourField, 0, 23)];
  const [days, months] = [take(dayField, 1, 31), take(monthField, 1, 12)];
  const weekdaysTaken = new Set([...take(weekdayField, 0, 7)].map((value) => value % 7));
  const isDay = (reading: Reading) => {
    const [byDay, byWeekday] = [days.has(reading.dayOfMonth), weekdaysTaken.has(reading.weekday)];
    // As in croniter: a field that selects all values is a `*` if the other field contains a `*`.
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
        // If the day does not have this time, the run is at the first moment after the jump.
        const after = readings.find((reading) => reading.hour * 60 + reading.minute > hour * 60 + minute);
        const run = first ?? after;
        if (run) runs.add(run.at);
      }
    }
  }
  return [...runs].sort((a, b) => a - b);
}
