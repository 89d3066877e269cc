/** Checks what may be said about a job: by its queue, its task, or one enqueue. */
import { ConfigError } from "../errors.js";
import { type JobOptions, jobOptionNames } from "../job.js";

const known: ReadonlySet<string> = new Set(jobOptionNames);

/**
 * As `checkJobOptions`, and refuses any other name: a typo would be ignored without a word, and `status` or `attempts`
 * out of a spread request body would become the job's own (D-61).
 */
export function onlyJobOptions<O extends JobOptions>(
  at: string,
  options: O,
  Failure: new (message: string) => Error = ConfigError,
): O {
  const unknown = Object.keys(options).find((name) => !known.has(name));
  if (unknown === undefined) return checkJobOptions(at, options, Failure);
  throw new Failure(`${at}: there is no option "${unknown}" (known: ${jobOptionNames.join(", ")})`);
}

/** Refuses a duration or count out of its range with the given error. Units: s. */
export function checkJobOptions<O extends JobOptions>(
  at: string,
  options: O,
  Failure: new (message: string) => Error = ConfigError,
): O {
  const check = (name: keyof JobOptions, ok: (value: number) => boolean, allowed: string) => {
    const value = options[name];
    if (value === undefined || (name === "timeout" && value === null)) return;
    if (name === "retryBackoff" && typeof value === "boolean") return;
    if (typeof value !== "number" || !Number.isFinite(value) || !ok(value)) {
      throw new Failure(`${at}: ${name} must be ${allowed}, got ${String(value)}`);
    }
  };
  check("timeout", (value) => value >= 0, "null or seconds >= 0 (0 and null: no limit)");
  check("heartbeat", (value) => value >= 0, "seconds >= 0 (0: off)");
  check(
    "retries",
    (value) => Number.isInteger(value) && value >= 0,
    "a whole number >= 0 of attempts in all",
  );
  check("ttl", Number.isSafeInteger, "whole seconds (0: keep for ever, -1: delete at once)");
  check("retryDelay", (value) => value >= 0, "seconds >= 0");
  check("retryBackoff", (value) => value >= 0, "true, false or a cap in seconds");
  return options;
}
