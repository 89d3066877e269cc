import { availableParallelism } from "node:os";
import { describe, expect, it } from "@jest/globals";
import { cronJob, cronKey, defineQueue, defineSaq } from "../../../templates/backend/saq/config/index.js";
import { ConfigError } from "../../../templates/backend/saq/errors.js";
import { findTask, task } from "../../../templates/backend/saq/tasks/task.js";

const dsn = "postgresql://user@127.0.0.1:5432/app";
const hello = () => "hi";
const define = (options: object = {}) => defineQueue({ name: "q", dsn, tasks: { hello }, ...options });

describe("defineQueue", () => {
  it("S-21: fills in the defaults", () => {
    expect(define()).toEqual({
      name: "q",
      dsn,
      tasks: { hello },
      concurrency: 10,
      threads: Math.max(1, availableParallelism() - 1),
      minSize: 1,
      maxSize: 3,
      defaults: {},
      pollInterval: 0,
      startTimeout: 60,
      shutdownGracePeriod: 10,
      cancellationHardDeadline: 1,
      failedTtl: 604_800,
      lostLimit: 3,
      maxBytes: 16 * 1024 * 1024,
      priorities: [0, 32767],
      prefetch: true,
      cronTimezone: "UTC",
      scheduledTasks: null,
      timers: { schedule: 1, workerInfo: 3, lost: 2, sweep: 10, abort: 1 },
      metadata: null,
      groupConcurrency: 1,
      tables: { schema: null, jobs: "saq_jobs", stats: "saq_stats", versions: "saq_versions" },
      lockKeyspace: 0,
      burst: false,
      dequeueTimeout: 0,
      maxBurstJobs: null,
      unknownTask: "fail",
      separateProcess: true,
      eventLoopDelay: 0.5,
      hookTimeout: 10,
      enableOtel: null,
      startup: [],
      shutdown: [],
      beforeProcess: [],
      aroundProcess: [],
      afterProcess: [],
    });
    expect(define({ timers: { sweep: 60 } }).timers).toMatchObject({ sweep: 60, abort: 1 });
    expect(define({ minSize: 5 }).maxSize).toBe(5);
    expect(define({ startup: hello, shutdown: [hello] })).toMatchObject({
      startup: [hello],
      shutdown: [hello],
    });
    expect(define({ burst: true, dequeueTimeout: 1, maxBurstJobs: 4 }).concurrency).toBe(4);
    expect(define({ burst: true, dequeueTimeout: 1, maxBurstJobs: 40 }).concurrency).toBe(10);
  });

  it("S-20: accepts the schemes postgres:// and postgresql://, in any case", () => {
    expect(define({ dsn: "postgres://h/d" }).dsn).toBe("postgres://h/d");
    expect(define({ dsn: "PostgreSQL://h/d" }).dsn).toBe("PostgreSQL://h/d");
  });

  it.each([
    "redis://localhost:6379/0",
    "rediss://:secret@h:6380/1",
    "unix:///run/redis.sock?db=1",
    "redis+unix:///run/redis.sock",
    "redis+sentinel://a:1,b:2/main/0",
    "redis+cluster://a:1,b:2",
  ])("S-20: accepts %s", (address) => {
    expect(define({ dsn: address }).dsn).toBe(address);
  });

  it("accepts options of PostgreSQL on Redis that change no job", () => {
    const options = { minSize: 2, maxSize: 5, pollInterval: 1, lockKeyspace: 7, tables: { schema: "queue" } };
    expect(define({ dsn: "redis://h", ...options })).toMatchObject({ minSize: 2, maxSize: 5 });
  });

  it("D-76: refuses a misspelled option at run time, because development runs without type checks", () => {
    expect(() => define({ concurency: 50 })).toThrow(
      /^defineQueue\("q"\): there is no option concurency \(known: name, dsn, tasks, concurrency, /,
    );
  });

  it("D-18: accepts a name of 59 bytes", () => {
    expect(define({ name: "x".repeat(59) }).name).toHaveLength(59);
  });

  it.each<[object, string]>([
    [
      { burst: true },
      'defineQueue("q"): burst needs a dequeueTimeout of more than 0 s; the burst ends after this time without a job',
    ],
    [
      { maxBurstJobs: 3 },
      'defineQueue("q"): maxBurstJobs works only in a burst; set burst: true, or leave maxBurstJobs out',
    ],
    [
      { burst: true, dequeueTimeout: 1, maxBurstJobs: 0 },
      'defineQueue("q"): maxBurstJobs must be a number of 1 or more, got 0',
    ],
    [{ unknownTask: "drop" }, 'defineQueue("q"): unknownTask must be "fail" or "requeue", got drop'],
    [
      { startup: "./hooks.js#startup" },
      'defineQueue("q"): startup must be a function or a list of functions, got the text "./hooks.js#startup"',
    ],
    [
      { afterProcess: [hello, null] },
      'defineQueue("q"): afterProcess must be a function or a list of functions, got null',
    ],
    [
      { shutdown: [hello, () => 1, hello] },
      'defineQueue("q"): shutdown lists the function hello twice; remove one',
    ],
    [{ name: "" }, 'defineQueue(""): name must be a text of 1 to 59 bytes, for instance "default"'],
    [{ threads: 0 }, 'defineQueue("q"): threads must be a number of 1 to 1000, got 0'],
    [{ name: 7 }, 'defineQueue(7): name must be a text of 1 to 59 bytes, for instance "default"'],
    [
      { name: "a\0" },
      'defineQueue("a\\u0000"): name must be a text of 1 to 59 bytes, for instance "default"',
    ],
    [
      { name: "é".repeat(30) },
      `defineQueue("${"é".repeat(30)}"): name has 60 bytes, but at most 59 are allowed; choose a shorter one`,
    ],
    [
      { dsn: "amqp://h" },
      'defineQueue("q"): dsn must begin with postgresql:// or postgres:// (PostgreSQL), or with redis://, ' +
        "rediss:// or unix:// (Redis), but it begins with amqp://; " +
        "for instance postgresql://user:password@127.0.0.1:5432/app or redis://localhost:6379/0",
    ],
    [
      { dsn: undefined },
      'defineQueue("q"): dsn is missing; set DATABASE_URL or QUEUE_DSN, ' +
        "for instance postgresql://user:password@127.0.0.1:5432/app or redis://localhost:6379/0",
    ],
    [
      { dsn: "redis://h", priorities: [0, 5] },
      'defineQueue("q"): Redis has no priorities. ' +
        "Leave priority and priorities out, or use one queue per priority.",
    ],
    [
      { dsn: "redis+cluster://h", groupConcurrency: 2 },
      'defineQueue("q"): Redis has no groups of jobs (groupKey, groupConcurrency). ' +
        "Leave groupKey and groupConcurrency out.",
    ],
    [
      { name: "{mail}", dsn: "redis+cluster://h" },
      'defineQueue("{mail}"): name must not contain } on a Redis Cluster, where all keys of a queue have its name in ' +
        'braces; choose a name without it, for instance "mail"',
    ],
    [
      { dsn: "redis://s3cret@h" },
      'defineQueue("q"): dsn has a user but no password; if it is the password, write a colon before it: ' +
        "redis://:password@host, and if the user has none, write one after it: redis://user:@host",
    ],
    // A refused dsn may contain a password, so none of these messages repeats it.
    [
      { dsn: "app:s3cret@db:5432/app" },
      'defineQueue("q"): dsn must begin with postgresql:// or postgres:// (PostgreSQL), or with redis://, ' +
        "rediss:// or unix:// (Redis), but it has no scheme; " +
        "for instance postgresql://user:password@127.0.0.1:5432/app or redis://localhost:6379/0",
    ],
    [
      { dsn: "postgresql://app:s3cr/et@db:5432/app" },
      'defineQueue("q"): dsn has a port that is not a whole number from 1 to 65535; percent-encode special ' +
        "characters in its password (# is %23, / is %2F, ? is %3F, @ is %40), for instance " +
        "postgresql://user:password@127.0.0.1:5432/app",
    ],
    [
      { defaults: { retires: 3 } },
      'defineQueue("q"): defaults: there is no option "retires" ' +
        "(known: timeout, heartbeat, retries, ttl, retryDelay, retryBackoff)",
    ],
    [
      { shutdownGracePeriod: 1e9 },
      'defineQueue("q"): shutdownGracePeriod must be a number of 0 to 2147483, got 1000000000',
    ],
    [{ concurrency: 0 }, 'defineQueue("q"): concurrency must be a number of 1 to 10000, got 0'],
    [{ concurrency: 1.5 }, 'defineQueue("q"): concurrency must be a whole number, got 1.5'],
    [{ concurrency: "10" }, 'defineQueue("q"): concurrency must be a whole number, got 10'],
    [{ minSize: -1 }, 'defineQueue("q"): minSize must be a number of 0 or more, got -1'],
    [{ maxSize: 1 }, 'defineQueue("q"): maxSize must be a number of 2 or more, got 1'],
    [{ minSize: 4, maxSize: 3 }, 'defineQueue("q"): maxSize must be a number of 4 or more, got 3'],
    [{ pollInterval: -1 }, 'defineQueue("q"): pollInterval must be a number of 0 to 2147483, got -1'],
    [
      { shutdownGracePeriod: Number.NaN },
      'defineQueue("q"): shutdownGracePeriod must be a number of 0 to 2147483, got NaN',
    ],
    [
      { cancellationHardDeadline: "1" },
      'defineQueue("q"): cancellationHardDeadline must be a number of 0 to 2147483, got 1',
    ],
    [{ failedTtl: -1 }, 'defineQueue("q"): failedTtl must be a number of 0 or more, got -1'],
    [{ lostLimit: 0.5 }, 'defineQueue("q"): lostLimit must be a whole number, got 0.5'],
    [{ priorities: [5, 1] }, 'defineQueue("q"): priorities[1] must be a number of 5 to 32767, got 1'],
    [
      { priorities: [-40_000, 1] },
      'defineQueue("q"): priorities[0] must be a number of -32768 to 32767, got -40000',
    ],
    [
      { priorities: 5 },
      'defineQueue("q"): priorities must be a list of two numbers, [lowest, highest], got 5',
    ],
    [{ separateProcess: "no" }, 'defineQueue("q"): separateProcess must be true or false, got no'],
    [
      { enableOtel: "yes" },
      'defineQueue("q"): enableOtel must be true, false or left out, got "yes"; left out means: if OpenTelemetry is installed and started',
    ],
    [{ prefetch: 0 }, 'defineQueue("q"): prefetch must be true or false, got 0'],
    [
      { timers: { sweeep: 5 } },
      'defineQueue("q"): there is no option timers.sweeep (known: schedule, workerInfo, lost, sweep, abort)',
    ],
    [
      { tasks: { slow: { run: hello, retrys: 3 } } },
      'defineQueue("q"): task "slow": there is no option "retrys" (known: run, input, output, ' +
        "thread, timeout, heartbeat, retries, ttl, retryDelay, retryBackoff)",
    ],
    [{ timers: { abort: 0 } }, 'defineQueue("q"): timers.abort must be a number of 0.01 to 2147483, got 0'],
    [{ tasks: { bad: 7 } }, 'defineQueue("q"): task "bad" must be a function or task({ run }), got number'],
    [
      { tasks: undefined },
      'defineQueue("q"): tasks must be an object of tasks by name, such as { sendMail }, got undefined',
    ],
    [
      { tasks: { slow: { run: hello, timeout: -1 } } },
      'defineQueue("q"): task "slow": timeout must be null or seconds >= 0 (0 and null: no limit), got -1',
    ],
    [
      { defaults: { retries: -1 } },
      'defineQueue("q"): defaults: retries must be a whole number >= 0 of attempts in all, got -1',
    ],
    [
      { defaults: { retryBackoff: "yes" } },
      'defineQueue("q"): defaults: retryBackoff must be true, false or a cap in seconds, got yes',
    ],
    [
      { defaults: { ttl: 1e300 } },
      'defineQueue("q"): defaults: ttl must be whole seconds (0: keep for ever, -1: delete at once), got 1e+300',
    ],
  ])("D-76: refuses %p with a message that names the value and what is allowed", (options, message) => {
    const act = () => define(options);
    expect(act).toThrow(ConfigError);
    expect(act).toThrow(new ConfigError(message));
  });

  it("does not repeat the password of a refused DSN", () => {
    expect(() => define({ dsn: "mysql://user:secret@h/d" })).toThrow(expect.not.stringContaining("secret"));
  });
});

describe("task", () => {
  it("refuses a task without a run function", () => {
    // @ts-expect-error no run
    expect(() => task({ timeout: 5 })).toThrow(
      new ConfigError(
        "task({ run }) must be a function, got undefined; write task({ run: async (ctx, payload) => ... })",
      ),
    );
  });

  it("W-11: finds no task for a name that every object has, such as constructor", () => {
    for (const name of ["constructor", "toString", "__proto__"])
      expect(findTask({ hello }, name)).toBeUndefined();
    expect(findTask({ hello }, "hello")).toBe(hello);
  });
});

describe("scheduledTasks", () => {
  const daily = { cron: "0 3 * * *" };
  const schedule = (...scheduledTasks: unknown[]) => define({ scheduledTasks });

  it("C-4: get their defaults, and the queue's time zone unless they have their own", () => {
    const jobs = [
      cronJob("hello", { ...daily, timeout: 5 }),
      cronJob("hello", {
        ...daily,
        name: "tokyo",
        timezone: "Asia/Tokyo",
        overlap: "allow",
        misfire: "once",
      }),
    ];
    const { scheduledTasks } = define({ scheduledTasks: jobs, cronTimezone: "Europe/Rome" });
    expect(scheduledTasks).toMatchObject([
      {
        name: "hello",
        task: "hello",
        cron: { text: "0 3 * * *", timezone: "Europe/Rome" },
        overlap: "skip",
        misfire: "skip",
        options: { timeout: 5 },
        meta: {},
      },
      { name: "tokyo", cron: { timezone: "Asia/Tokyo" }, overlap: "allow", misfire: "once" },
    ]);
    expect(scheduledTasks?.map((entry) => cronKey(entry, 1_700_000_000))).toEqual([
      "cron:hello",
      "cron:tokyo:1700000000",
    ]);
  });

  it.each<[() => unknown, string]>([
    [
      () => cronJob("hello", { cron: "0 3 * *" }),
      "Cron is invalid 0 3 * *: it has 4 fields; 5 are allowed (minute hour day month weekday), or 6 with the seconds last",
    ],
    [
      () => schedule(cronJob("hello", daily), cronJob("hello", daily)),
      'defineQueue("q"): two scheduled tasks are named "hello", so only one of them would run; ' +
        'give one of them a name of its own: cronJob("...", { name: "hello2", ... })',
    ],
    [
      () => schedule(cronJob("bye", daily)),
      'defineQueue("q"): cronJob("bye") names a task that is not in tasks (known: hello)',
    ],
    [
      () => schedule("hello"),
      'defineQueue("q"): scheduledTasks takes cronJob("task", { cron: "0 3 * * *" }), got string',
    ],
    [
      () => define({ scheduledTasks: cronJob("hello", daily) }),
      'defineQueue("q"): scheduledTasks must be a list of cronJob(...), got object',
    ],
    [
      () => define({ cronTimezone: "Mars" }),
      'timezone must be an IANA name, for instance "UTC" or "Europe/Rome", got "Mars"',
    ],
    [
      () => schedule(cronJob("hello", { ...daily, name: "" })),
      'defineQueue("q"): cronJob(""): name must be a text of 1 to 200 characters',
    ],
    [
      () => schedule(cronJob("hello", { ...daily, overlap: "never" as "skip" })),
      'defineQueue("q"): cronJob("hello"): overlap must be "skip" or "allow", got "never"',
    ],
    [
      () => schedule(cronJob("hello", { ...daily, misfire: "all" as "skip" })),
      'defineQueue("q"): cronJob("hello"): misfire must be "skip" or "once", got "all"',
    ],
    [
      () => schedule(cronJob("hello", { ...daily, unique: false } as typeof daily)),
      'defineQueue("q"): cronJob("hello"): there is no option unique; use overlap: "allow" for SAQ\'s unique=False',
    ],
    [
      () => schedule(cronJob("hello", { ...daily, retires: 2 } as typeof daily)),
      'defineQueue("q"): cronJob("hello"): there is no option "retires" (known: cron, name, timezone, overlap, ' +
        "misfire, meta, timeout, heartbeat, retries, ttl, retryDelay, retryBackoff)",
    ],
    [
      () => schedule(cronJob("hello", { ...daily, retries: 1.5 })),
      'defineQueue("q"): cronJob("hello"): retries must be a whole number >= 0 of attempts in all, got 1.5',
    ],
  ])("D-56, D-58, T-60: refuses a schedule that cannot work: %p", (act, message) => {
    expect(act).toThrow(new ConfigError(message));
  });

  it("D-14: the scheduled tasks of two queues in one database need different names", () => {
    const scheduledTasks = [cronJob("hello", daily)];
    const one = define({ scheduledTasks });
    const two = (options: object = {}) => define({ name: "r", scheduledTasks, ...options });
    expect(() => defineSaq({ queues: [one, two()] })).toThrow(
      new ConfigError(
        'defineSaq: queues "q" and "r" share a database, and both have a scheduled task named "hello"; ' +
          'give one of them a name of its own: cronJob("...", { name: "r-hello", ... })',
      ),
    );
    const elsewhere = { dsn: "postgresql://other/app" };
    const apart = { tables: { jobs: "r_jobs", stats: "r_stats", versions: "r_versions" } };
    for (const options of [elsewhere, apart]) defineSaq({ queues: [one, two(options)] });
  });

  it("the scheduled tasks of two queues on one Redis may have the same name, because each queue has its own keys", () => {
    const options = { dsn: "redis://h/0", scheduledTasks: [cronJob("hello", daily)] };
    defineSaq({ queues: [define(options), define({ ...options, name: "r" })] });
  });
});

describe("defineSaq", () => {
  it("disables the web UI by default, mounts it at /saq, and normalizes the slashes of its path", () => {
    expect(defineSaq({ queues: [define()] }).web).toEqual({ enabled: false, path: "/saq", guards: [] });
    expect(defineSaq({ queues: [define()], web: { enabled: true, path: "admin/jobs//" } }).web).toEqual({
      enabled: true,
      path: "/admin/jobs",
      guards: [],
    });
  });

  it.each<[() => unknown, string]>([
    [() => defineSaq({ queues: [] }), "defineSaq: queues is empty; pass at least one defineQueue({...})"],
    [
      () => defineSaq({ queues: [define()], enableOtel: null as never }),
      "defineSaq: enableOtel must be true, false or left out, got null; left out means: if OpenTelemetry is installed and started",
    ],
    [
      () => defineSaq({ queues: [define(), define()] }),
      'defineSaq: two queues are named "q"; give each queue a name of its own',
    ],
    [
      () => defineSaq({ queues: [define()], web: { enabled: true, path: "/" } }),
      'defineSaq: web.path must not be the root; use for instance "/saq"',
    ],
  ])("D-76: refuses a configuration that cannot work: %p", (act, message) => {
    expect(act).toThrow(new ConfigError(message));
  });

  it.each([
    ["redis://h", "redis://:secret@h:6379/0"],
    ["redis+sentinel://a:1,b:2/main/0", "redis+sentinel://a:1,b:2/main/0"],
  ])("refuses the queues a:b on %s and a on %s, because their jobs could have one key", (first, second) => {
    const queues = [define({ name: "a:b", dsn: first }), define({ name: "a", dsn: second })];
    expect(() => defineSaq({ queues })).toThrow(
      new ConfigError(
        'defineSaq: queues "a" and "a:b" share a Redis, and their jobs could have the same key, because the second ' +
          'name begins with "a:"; rename one of them, for instance to "a-b", or give it another database in its dsn',
      ),
    );
  });

  it.each([
    ["a:b in another database", { name: "a:b", dsn: "redis://h/1" }],
    ["a:b in PostgreSQL", { name: "a:b" }],
    ["ab", { name: "ab", dsn: "redis://h" }],
    ["b:a", { name: "b:a", dsn: "redis://h" }],
  ])("accepts the queue a on Redis beside %s", (_, other) => {
    defineSaq({ queues: [define({ name: "a", dsn: "redis://h" }), define(other)] });
  });

  it("accepts the queues a:b and a on a cluster, whose keys have the names in braces", () => {
    const dsn = "redis+cluster://a:1,b:2";
    defineSaq({ queues: [define({ name: "a:b", dsn }), define({ name: "a", dsn })] });
  });

  it("accepts names with braces on a single server, and an opening brace on a cluster", () => {
    define({ name: "{mail}", dsn: "redis://h" });
    define({ name: "{mail", dsn: "redis+cluster://h" });
  });
});
