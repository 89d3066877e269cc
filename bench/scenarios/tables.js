// Measures a drain when the table is not small and clean.
import { monotonic, sleep, within } from "../clock.js";
import { withClient } from "../database.js";

const perSecond = { unit: "jobs/s", better: "higher" };

/**
 * Drains `options.jobs` due jobs from a table in which `prepare` has put other jobs. `prepare` returns what to do after
 * the jobs are stored (`stored`) and at the end (`end`), and the `scope` of the drain. It returns null if the
 * contestant does not support the scenario.
 */
const beside = (figure, prepare) => async (contender) => {
  const { jobs } = contender;
  return contender.administer(async (admin) => {
    const then = await prepare(admin, contender);
    if (then === null) return null;
    try {
      await contender.store(jobs);
      await then.stored?.();
      const drain = await contender.drain(admin, jobs, { scope: then.scope });
      return { [figure]: drain.jobs / drain.seconds };
    } finally {
      await then.end?.();
    }
  });
};

const scenario = (what, figure, prepare) => ({
  what,
  figures: { [figure]: perSecond },
  run: beside(figure, prepare),
});

const filled = (kind) => async (admin, contender) =>
  (await contender.filled(admin, kind, contender.options.rows)) ? {} : null;

/** Fills in jobs of the future. When the due jobs are stored, they get a lower priority than the jobs of the future. */
const behindUrgent = async (admin, contender) => {
  if (!admin.demote) return null;
  await contender.filled(admin, "future", contender.options.rows / 2);
  return { stored: () => admin.demote() };
};

/** Drains a large backlog of due jobs. */
async function backlog(contender) {
  return contender.administer(async (admin) => {
    const jobs = contender.options.rows / 5;
    await contender.empty(admin);
    await admin.fill("queued", jobs);
    const drain = await contender.drain(admin, jobs);
    return { "drain of a backlog": drain.jobs / drain.seconds };
  });
}

/**
 * A worker starts on an empty table that was never analysed, so the query plans that it keeps were made for no rows.
 * The jobs are stored afterwards, without a vacuum. The time runs from the call that stores the jobs to the commit of
 * the last completion. If it ran from the start of one handler to the start of another, a contestant that claims 1,000
 * jobs at once would get the first and the last 1,000 for free.
 */
async function unanalysed(contender) {
  const { jobs } = contender;
  const { concurrency, longest } = contender.options;
  await contender.renewed();
  const worker = await contender.worker();
  const producer = await contender.producer();
  try {
    const done = worker.finished();
    await worker.call("work", { concurrency, expected: jobs });
    return await contender.administer(async (admin) => {
      const start = monotonic();
      await producer.call("enqueueMany", { count: jobs });
      const isWhole = await within(longest, done);
      while (isWhole && (await admin.unfinished())) await sleep(1);
      const end = monotonic();
      const { count } = await worker.call("report");
      return { "enqueue and drain at once, never analysed": count / ((end - start) / 1e9) };
    });
  } finally {
    await producer.stop();
    await worker.stop();
  }
}

/**
 * Holds a transaction open from before the drain until its end. Row versions that die during the drain cannot be
 * removed.
 */
async function oldSnapshot(admin, contender) {
  await contender.empty(admin);
  let release = () => {};
  const ended = new Promise((resolve) => {
    release = resolve;
  });
  let began = () => {};
  const begun = new Promise((resolve) => {
    began = resolve;
  });
  const holding = withClient(contender.url, async (client) => {
    await client.query("begin isolation level repeatable read");
    await client.query("select count(*) from pg_class");
    began();
    await ended;
    await client.query("rollback");
  });
  await begun;
  return {
    end: async () => {
      release();
      await holding;
    },
  };
}

/** Fills in one group of jobs, of which one job runs and all others wait. The drain has jobs without a group. */
const besideGroup = async (admin, contender) => {
  if (!contender.contestant.hasGroups) return null;
  await contender.empty(admin);
  await admin.fill("queued", contender.options.rows / 10, { groups: 1 });
  await admin.holdGroups();
  return { scope: { ungrouped: true } };
};

/** Drains many small groups. Only one job of a group runs at a time. */
async function manyGroups(contender) {
  if (!contender.contestant.hasGroups) return null;
  const jobs = contender.jobs;
  return contender.administer(async (admin) => {
    await contender.empty(admin);
    await admin.fill("queued", jobs, { groups: jobs / 2 });
    const drain = await contender.drain(admin, jobs);
    return { "drain of many small groups": drain.jobs / drain.seconds };
  });
}

export const tableScenarios = {
  "beside-finished": scenario(
    "drain beside a million finished jobs",
    "drain beside finished jobs",
    filled("finished"),
  ),
  "beside-future": scenario(
    "drain beside a million jobs of the future",
    "drain beside future jobs",
    filled("future"),
  ),
  "beside-urgent-future": scenario(
    "drain behind half a million jobs of the future that come first by priority",
    "drain behind future jobs of a higher priority",
    behindUrgent,
  ),
  backlog: {
    what: "drain of 200,000 queued jobs",
    figures: { "drain of a backlog": perSecond },
    run: backlog,
  },
  unanalysed: {
    what: "a worker that started on an empty, never analysed table, then jobs",
    figures: { "enqueue and drain at once, never analysed": perSecond },
    run: unanalysed,
  },
  "old-snapshot": scenario(
    "drain while a transaction holds an old snapshot",
    "drain under an old snapshot",
    async (admin, contender) => (admin.client ? oldSnapshot(admin, contender) : null),
  ),
  "beside-group": scenario(
    "drain of ungrouped jobs beside one group of 100,000",
    "drain beside a heavy group",
    besideGroup,
  ),
  "many-groups": {
    what: "drain of groups with two jobs each",
    figures: { "drain of many small groups": perSecond },
    run: manyGroups,
  },
};
