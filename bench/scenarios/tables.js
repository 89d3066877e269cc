// Draining where the table is not small and clean.
import { monotonic, sleep, within } from "../clock.js";
import { withClient } from "../database.js";

const perSecond = { unit: "jobs/s", better: "higher" };

/**
 * Drains `options.jobs` due jobs beside what `prepare` leaves in the table. It answers what to do once the jobs are stored
 * and at the end, or null where the contestant has no such thing.
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

/** Jobs of the future that come first by priority, as soon as the due ones are given a later one. */
const behindUrgent = async (admin, contender) => {
  if (!admin.demote) return null;
  await contender.filled(admin, "future", contender.options.rows / 2);
  return { stored: () => admin.demote() };
};

/** A large backlog, all of it due. */
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
 * A worker that started on an empty table which nobody ever analysed: the plans that it keeps were made for no rows.
 * The jobs come afterwards, without a vacuum. From the call that stores them to the last completion committed: counted from
 * one handler's start to another's, who claims 1,000 at once would get the first and the last 1,000 for nothing.
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

/** Somebody's transaction that has been open since before the drain: no row version that dies during it can go. */
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

/** Ungrouped jobs beside one group of which one job runs and all others wait. */
const besideGroup = async (admin, contender) => {
  if (!contender.contestant.hasGroups) return null;
  await contender.empty(admin);
  await admin.fill("queued", contender.options.rows / 10, { groups: 1 });
  await admin.holdGroups();
  return { scope: { ungrouped: true } };
};

/** Many small groups: one job of each at a time. */
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
