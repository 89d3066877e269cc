/**
 * The checks of `defineQueue`. Each error names the option, the value received and what is allowed; `at` says where.
 */
import { redisCapabilities, requireCapability } from "../core/capabilities.js";
import { ConfigError } from "../errors.js";
import { parseQueueAddress, type QueueAddress } from "../queue-address.js";
import { isClusterAddress } from "../redis-address.js";
import type { OneOrMany } from "../tasks/hooks.js";
import type { TaskMap } from "../tasks/task.js";
import { onlyJobOptions } from "./job-options.js";
import type { QueueOptions } from "./queue-options.js";

/** Maximum of a timer, s: Node's timers hold 31 bits of milliseconds (24 days) and fire at once beyond that. */
export const maxTimerSeconds = 2_147_483;

export function checkName(at: string, name: string): void {
  if (typeof name !== "string" || name === "" || name.includes("\0")) {
    throw new ConfigError(`${at}: name must be a text of 1 to 59 bytes, for instance "default"`);
  }
  const bytes = Buffer.byteLength(name);
  if (bytes > 59)
    throw new ConfigError(`${at}: name has ${bytes} bytes, but at most 59 are allowed; choose a shorter one`);
}

const optionNames: Record<keyof QueueOptions, true> = {
  name: true,
  dsn: true,
  tasks: true,
  concurrency: true,
  threads: true,
  minSize: true,
  maxSize: true,
  defaults: true,
  pollInterval: true,
  startTimeout: true,
  shutdownGracePeriod: true,
  cancellationHardDeadline: true,
  failedTtl: true,
  lostLimit: true,
  maxBytes: true,
  priorities: true,
  groupConcurrency: true,
  prefetch: true,
  tables: true,
  lockKeyspace: true,
  scheduledTasks: true,
  cronTimezone: true,
  timers: true,
  metadata: true,
  burst: true,
  dequeueTimeout: true,
  maxBurstJobs: true,
  unknownTask: true,
  separateProcess: true,
  enableOtel: true,
  eventLoopDelay: true,
  hookTimeout: true,
  startup: true,
  shutdown: true,
  beforeProcess: true,
  aroundProcess: true,
  afterProcess: true,
};

/**
 * Refuses unknown options. Development runs without the compiler's checks: a typo there would silently keep the
 * default.
 *
 * @throws ConfigError naming the unknown option and the known ones
 */
export function checkOptionNames(
  at: string,
  options: object,
  known: object = optionNames,
  prefix = "",
): void {
  const unknown = Object.keys(options).find((name) => !Object.hasOwn(known, name));
  if (unknown === undefined) return;
  throw new ConfigError(
    `${at}: there is no option ${prefix}${unknown} (known: ${Object.keys(known).join(", ")})`,
  );
}

/** Checks of numbers. Each returns the number that it was given. */
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

export function checkPair<T>(at: string, name: string, pair: readonly [T, T]): readonly [T, T] {
  if (Array.isArray(pair) && pair.length === 2) return pair;
  throw new ConfigError(
    `${at}: ${name} must be a list of two numbers, [lowest, highest], got ${JSON.stringify(pair)}`,
  );
}

/** @throws ConfigError if the option is neither a boolean nor left out */
export function checkEnableOtel(at: string, value: boolean | undefined): boolean | null {
  if (value === undefined || typeof value === "boolean") return value ?? null;
  throw new ConfigError(
    `${at}: enableOtel must be true, false or left out, got ${JSON.stringify(value)}; left out means: ` +
      "if OpenTelemetry is installed and started",
  );
}

export function oneOf<const Value extends string | boolean>(
  at: string,
  name: string,
  value: Value,
  allowed: readonly Value[],
): Value {
  if (allowed.includes(value)) return value;
  const list = allowed.map((each) => JSON.stringify(each)).join(" or ");
  throw new ConfigError(`${at}: ${name} must be ${list}, got ${String(value)}`);
}

/**
 * Checks and completes `concurrency` and the options of a burst. `maxBurstJobs` lowers `concurrency`.
 *
 * @throws ConfigError if a number is out of range, a burst has no `dequeueTimeout`, or `maxBurstJobs` is set without a
 * burst
 */
export function completeBurst(
  at: string,
  {
    concurrency = 10,
    burst = false,
    dequeueTimeout = 0,
    maxBurstJobs,
  }: Pick<QueueOptions, "concurrency" | "burst" | "dequeueTimeout" | "maxBurstJobs">,
) {
  const { number, integer } = numberChecks(at);
  integer("concurrency", concurrency, 1, 10_000);
  number("dequeueTimeout", dequeueTimeout, 0, maxTimerSeconds);
  if (maxBurstJobs !== undefined) integer("maxBurstJobs", maxBurstJobs, 1);
  if (burst && dequeueTimeout === 0) {
    throw new ConfigError(
      `${at}: burst needs a dequeueTimeout of more than 0 s; the burst ends after this time without a job`,
    );
  }
  if (!burst && maxBurstJobs !== undefined) {
    throw new ConfigError(
      `${at}: maxBurstJobs works only in a burst; set burst: true, or leave maxBurstJobs out`,
    );
  }
  return {
    concurrency: Math.min(concurrency, maxBurstJobs ?? concurrency),
    burst,
    dequeueTimeout,
    maxBurstJobs: maxBurstJobs ?? null,
  };
}

/**
 * Checks the DSN and returns the storage that it names. No error repeats the DSN or has a cause that does, because it
 * holds a password.
 *
 * @throws ConfigError if it is missing, or is no address of a PostgreSQL database or a Redis server
 */
export function checkDsn(at: string, dsn: string): QueueAddress["storage"] {
  if (typeof dsn !== "string" || dsn === "") {
    throw new ConfigError(
      `${at}: dsn is missing; set DATABASE_URL or QUEUE_DSN, ` +
        "for instance postgresql://user:password@127.0.0.1:5432/app or redis://localhost:6379/0",
    );
  }
  try {
    return parseQueueAddress(dsn).storage;
  } catch (error) {
    throw new ConfigError(`${at}: dsn ${(error as Error).message}`);
  }
}

/**
 * Refuses the options of PostgreSQL that change which jobs run, if the queue is on Redis. The other ones, such as the
 * size of the pool, are accepted without effect, so that `dsn` is the only option to change. On a cluster, the keys of
 * a queue contain its name in braces, and a `}` in the name would end it too early.
 *
 * @throws ConfigError naming the option and what to do without it
 */
export function checkRedisOptions(
  at: string,
  {
    name,
    dsn,
    priorities,
    groupConcurrency,
  }: Pick<QueueOptions, "name" | "dsn" | "priorities" | "groupConcurrency">,
): void {
  if (name.includes("}") && isClusterAddress(dsn)) {
    throw new ConfigError(
      `${at}: name must not contain } on a Redis Cluster, where all keys of a queue have its name in braces; choose ` +
        `a name without it, for instance ${JSON.stringify(name.replaceAll(/[{}]/g, "") || "default")}`,
    );
  }
  const isDefault = priorities === undefined || (priorities[0] === 0 && priorities[1] === 32_767);
  if (!isDefault) requireCapability(at, "priorities", redisCapabilities);
  if ((groupConcurrency ?? 1) !== 1) requireCapability(at, "groups", redisCapabilities);
}

export function checkTasks(at: string, tasks: TaskMap): void {
  if (typeof tasks !== "object" || tasks === null) {
    throw new ConfigError(
      `${at}: tasks must be an object of tasks by name, such as { sendMail }, got ${String(tasks)}`,
    );
  }
  for (const [name, task] of Object.entries(tasks)) {
    if (typeof task === "function") continue;
    if (typeof task !== "object" || task === null || typeof task.run !== "function") {
      throw new ConfigError(`${at}: task "${name}" must be a function or task({ run }), got ${typeof task}`);
    }
    const { run: _run, input: _input, output: _output, thread: _thread, ...options } = task;
    onlyJobOptions(`${at}: task "${name}"`, options, ConfigError, ["run", "input", "output", "thread"]);
  }
}

/**
 * Returns one hook or a list of hooks as a list. A text is refused: SAQ takes it for a list and runs it letter by
 * letter. A function that is listed twice is refused too, because it would run twice.
 *
 * @throws ConfigError
 */
export function listOfHooks<Hook extends (...args: never[]) => unknown>(
  at: string,
  name: string,
  hooks: OneOrMany<Hook> = [],
): readonly Hook[] {
  const list = (Array.isArray(hooks) ? [...hooks] : [hooks]) as Hook[];
  for (const [index, hook] of list.entries()) {
    if (typeof hook !== "function") {
      const got = typeof hook === "string" ? `the text ${JSON.stringify(hook)}` : String(hook);
      throw new ConfigError(`${at}: ${name} must be a function or a list of functions, got ${got}`);
    }
    if (list.indexOf(hook) !== index) {
      throw new ConfigError(
        `${at}: ${name} lists the function ${hook.name || "(anonymous)"} twice; remove one`,
      );
    }
  }
  return list;
}
