/** Checks the options of jobs, which a queue, a task or one enqueue may set. */

import { type JobOptions, jobOptionNames } from "../core/job.js";
import { ConfigError } from "../errors.js";

const known: ReadonlySet<string> = new Set(jobOptionNames);

/**
 * Like `checkJobOptions`, and also refuses every other name: a typo would be ignored silently, and `status` or
 * `attempts` from a spread request body would become the job's own. `otherNames`: allowed names that the caller has
 * checked and removed from `options`; the error lists them too.
 *
 * @throws Failure naming the option, the value received and what is allowed
 */
export function onlyJobOptions<O extends JobOptions>(
  at: string,
  options: O,
  Failure: new (message: string) => Error = ConfigError,
  otherNames: readonly string[] = [],
): O {
  const unknown = Object.keys(options).find((name) => !known.has(name));
  if (unknown === undefined) return checkJobOptions(at, options, Failure);
  const names = [...otherNames, ...jobOptionNames].join(", ");
  throw new Failure(`${at}: there is no option "${unknown}" (known: ${names})`);
}

/**
 * Checks that each duration (s) and count is within its range, and returns the options.
 *
 * @throws Failure naming the option, the value received and what is allowed
 */
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
