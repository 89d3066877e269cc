/** What a task throws to run again later, although nothing has failed. */
import { InvalidJobError } from "../errors.js";

/** The same symbol in every copy of this module and in every realm. There `instanceof` does not hold. */
const mark = Symbol.for("saq.Snooze");

/** A longer time is a mistake, for instance milliseconds or a point in time. */
const maxDays = 366;
const maxSeconds = maxDays * 24 * 3_600;

/**
 * What `ctx.snooze` returns, for the task to throw. It is an Error because tools expect that only errors are thrown. It
 * is not treated as one.
 */
export class Snooze extends Error {
  override readonly name = "Snooze";
  /** Time until the job is due again, s. */
  readonly seconds: number;

  constructor(seconds: number) {
    super(`its job is due again in ${seconds} s`);
    this.seconds = seconds;
  }

  get [mark](): true {
    return true;
  }
}

/** @throws InvalidJobError if `seconds` is not a number of 0 to 31,622,400 */
export function snooze(seconds: number): Snooze {
  if (isDelay(seconds)) return new Snooze(seconds);
  throw new InvalidJobError(
    `ctx.snooze takes the seconds until the next run, a number of 0 to ${maxSeconds} (${maxDays} days), ` +
      `got ${typeof seconds === "string" ? `the text ${JSON.stringify(seconds)}` : String(seconds)}. ` +
      "To run a task later than that, enqueue it with the option scheduled",
  );
}

const isDelay = (seconds: unknown): seconds is number =>
  typeof seconds === "number" && seconds >= 0 && seconds <= maxSeconds;

/** Returns the snooze that a task has thrown; null if it has thrown anything else. */
export function snoozeOf(thrown: unknown): Snooze | null {
  if (thrown instanceof Snooze) return thrown;
  try {
    if (typeof thrown !== "object" || thrown === null || !(mark in thrown)) return null;
    const { seconds } = thrown as { seconds?: unknown };
    return isDelay(seconds) ? new Snooze(seconds) : null;
  } catch {
    // A proxy threw.
    return null;
  }
}

/** Returns the error of a task that has returned its snooze in place of throwing it; null for any other result. */
export const returnedSnooze = (result: unknown): string | null =>
  result instanceof Snooze
    ? `the task returned ctx.snooze(${result.seconds}), which has no effect; write: throw ctx.snooze(${result.seconds})`
    : null;
