// Measures how fast workers finish stored jobs.

const perSecond = { unit: "jobs/s", better: "higher" };

async function drained(contender, { processes, work, deleted, text } = {}) {
  const { jobs } = contender;
  return contender.administer(async (admin) => {
    await contender.empty(admin);
    await contender.store(jobs, { deleted, text });
    const drain = await contender.drain(admin, jobs, { processes, work, deleted });
    return { ...drain, shape: await admin.shape?.() };
  });
}

/** Drains no-op jobs with one worker, `concurrency` at the same time, and returns the rate and the cost of a job. */
async function drain(contender) {
  const { seconds, cpuUs, serverUs, walBytes, jobs, shape } = await drained(contender);
  return {
    drain: jobs / seconds,
    "drain, worker CPU": cpuUs / jobs,
    ...(serverUs === undefined ? {} : { "drain, server CPU": serverUs / jobs }),
    ...(walBytes === undefined ? {} : { "drain, WAL": walBytes / jobs }),
    shape,
  };
}

/** Drains no-op jobs that are deleted when they end. Returns null if the contestant cannot delete them. */
async function drainDeleted(contender) {
  if (!contender.contestant.deletesJobs) return null;
  const { seconds, cpuUs, serverUs, jobs } = await drained(contender, { deleted: true });
  return {
    "drain, deleted": jobs / seconds,
    "drain, deleted, worker CPU": cpuUs / jobs,
    ...(serverUs === undefined ? {} : { "drain, deleted, server CPU": serverUs / jobs }),
  };
}

/** A text of 2 KB in UTF-8. */
const cyrillic = "слово ".repeat(186);

/** Drains no-op jobs with 2 KB of Cyrillic text. Returns null for programs in other languages, with other payloads. */
async function drainCyrillic(contender) {
  if (contender.contestant.command) return null;
  const { seconds, cpuUs, serverUs, jobs } = await drained(contender, { text: cyrillic });
  return {
    "drain, 2 KB Cyrillic": jobs / seconds,
    "drain, 2 KB Cyrillic, worker CPU": cpuUs / jobs,
    ...(serverUs === undefined ? {} : { "drain, 2 KB Cyrillic, server CPU": serverUs / jobs }),
  };
}

const variant = (figure, options) => async (contender) => {
  const { deletesJobs, hasTransactions } = contender.contestant;
  if ((options.deleted && !deletesJobs) || (options.work?.inTransaction && !hasTransactions)) return null;
  const { seconds, jobs } = await drained(contender, options);
  return { [figure]: jobs / seconds };
};

const simple = (what, figure, options) => ({
  what,
  figures: { [figure]: perSecond },
  run: variant(figure, options),
});

/** Drains jobs that take `ms` with two workers. Returns the rate, and the less busy worker's share of the jobs. */
const sleeping = (ms, most) => async (contender) =>
  contender.administer(async (admin) => {
    const jobs = Math.min(most, contender.jobs);
    await contender.empty(admin);
    await contender.store(jobs);
    const drain = await contender.drain(admin, jobs, { processes: 2, work: { sleepMs: ms } });
    return {
      [`${ms} ms jobs, 2 workers`]: drain.jobs / drain.seconds,
      [`${ms} ms jobs, share of the less busy worker`]: Math.min(...drain.counts) / drain.jobs,
    };
  });

const sleepingScenario = (ms, jobs) => ({
  what: `jobs of ${ms} ms per second, two workers, and how evenly these share them`,
  figures: {
    [`${ms} ms jobs, 2 workers`]: perSecond,
    [`${ms} ms jobs, share of the less busy worker`]: { unit: "of 0.5", better: "higher" },
  },
  run: sleeping(ms, jobs),
});

export const drainScenarios = {
  drain: {
    what: "no-op jobs finished per second by one worker, and what each costs",
    figures: {
      drain: perSecond,
      "drain, worker CPU": { unit: "us/job", better: "lower" },
      "drain, server CPU": { unit: "us/job", better: "lower" },
      "drain, WAL": { unit: "bytes/job", better: "lower" },
    },
    run: drain,
  },
  "drain-2": simple("the same by two workers", "drain, 2 workers", { processes: 2 }),
  "drain-best": simple("the same with each one's best settings", "drain, best settings", {
    work: { best: true },
  }),
  "drain-best-2": simple("the same, two workers", "drain, best settings, 2 workers", {
    processes: 2,
    work: { best: true },
  }),
  "drain-cyrillic": {
    what: "no-op jobs with 2 KB of Cyrillic text finished per second by one worker, and what each costs",
    figures: {
      "drain, 2 KB Cyrillic": perSecond,
      "drain, 2 KB Cyrillic, worker CPU": { unit: "us/job", better: "lower" },
      "drain, 2 KB Cyrillic, server CPU": { unit: "us/job", better: "lower" },
    },
    run: drainCyrillic,
  },
  "drain-deleted": {
    what: "no-op jobs that are deleted at their end finished per second by one worker, and what each costs",
    figures: {
      "drain, deleted": perSecond,
      "drain, deleted, worker CPU": { unit: "us/job", better: "lower" },
      "drain, deleted, server CPU": { unit: "us/job", better: "lower" },
    },
    run: drainDeleted,
  },
  "drain-deleted-best": simple("the same with each one's best settings", "drain, deleted, best settings", {
    deleted: true,
    work: { best: true },
  }),
  "drain-deleted-2": simple("the same as drain-deleted, two workers", "drain, deleted, 2 workers", {
    deleted: true,
    processes: 2,
  }),
  "drain-finish": simple(
    "jobs with a transaction of their own, which ends the job where it can (ctx.finish)",
    "drain, own transaction",
    { work: { inTransaction: true } },
  ),
  "sleep-1": sleepingScenario(1, 10_000),
  "sleep-20": sleepingScenario(20, 2_000),
};
