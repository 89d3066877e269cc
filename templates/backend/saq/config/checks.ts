/** Refusals of `defineQueue`: each names the option, the value received and what is allowed. `at` says where. */
import { ConfigError } from "../errors.js";
import type { TaskMap } from "../task.js";
import { checkJobOptions } from "./job-options.js";

/** Node's timers hold 31 bits of milliseconds and fire at once beyond: 24 days, in s. */
export const longestTimer = 2_147_483;

export function checkName(at: string, name: string): void {
  if (typeof name !== "string" || name === "" || name.includes("\0")) {
    throw new ConfigError(`${at}: name must be a text of 1 to 59 bytes, for instance "default"`);
  }
  const bytes = Buffer.byteLength(name);
  if (bytes > 59)
    throw new ConfigError(`${at}: name has ${bytes} bytes, 59 are allowed; choose a shorter one`);
}

/** Checks of numbers that answer what they were given. */
export function numberChecks(at: string) {
  const number = (name: string, value: number, min: number, max = Number.MAX_SAFE_INTEGER) => {
    if (typeof value !== "number" || !(value >= min && value <= max)) {
      const range = max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `${min} to ${max}`;
      throw new ConfigError(`${at}: ${name} must be a number of ${range}, got ${String(value)}`);
    }
    return value;
  };
  const integer = (name: string, value: number, min: number, max?: number) => {
    if (!Number.isInteger(value))
      throw new ConfigError(`${at}: ${name} must be a whole number, got ${String(value)}`);
    return number(name, value, min, max);
  };
  return { number, integer };
}

/** Never repeats the DSN, nor keeps an error that does: it holds a password. */
export function checkDsn(at: string, dsn: string): void {
  const example = "for instance postgresql://user:password@127.0.0.1:5432/app";
  if (typeof dsn !== "string" || dsn === "") {
    throw new ConfigError(`${at}: dsn is missing; set DATABASE_URL or QUEUE_DSN, ${example}`);
  }
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(dsn)?.[1]?.toLowerCase();
  if (scheme !== "postgresql" && scheme !== "postgres") {
    const got = scheme ? `it begins with ${scheme}://` : "it has no scheme";
    throw new ConfigError(`${at}: dsn must begin with postgresql:// or postgres://, but ${got}; ${example}`);
  }
  if (!URL.canParse(dsn)) {
    throw new ConfigError(
      `${at}: dsn cannot be read as an address; percent-encode special characters in its password (# is %23, / is %2F), ${example}`,
    );
  }
}

export function checkTasks(at: string, tasks: TaskMap): void {
  if (typeof tasks !== "object" || tasks === null) {
    throw new ConfigError(`${at}: tasks must be an object of tasks by name, got ${String(tasks)}`);
  }
  for (const [name, given] of Object.entries(tasks)) {
    if (typeof given === "function") continue;
    if (typeof given !== "object" || given === null || typeof given.run !== "function") {
      throw new ConfigError(`${at}: task "${name}" must be a function or task({ run }), got ${typeof given}`);
    }
    checkJobOptions(`${at}: task "${name}"`, given);
  }
}
