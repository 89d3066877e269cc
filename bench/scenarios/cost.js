// The cost of one job in a growing table: with a million kept jobs, a million jobs of the future, and 200,000 waiting
// jobs, compared with a small table. The cost is counted and not timed, so other load of the machine does not change
// it.

const inFlight = 50;
const warmUp = 500;

/**
 * Functions that fill the table before the measured jobs are stored. Each returns options for the drain, or null if the
 * contestant does not have this kind of jobs.
 */
const tables = {
  small: async (admin, contender) => {
    await contender.empty(admin);
    return {};
  },
  kept: async (admin, contender) =>
    (await contender.filled(admin, "finished", contender.options.rows)) ? {} : null,
  future: async (admin, contender) =>
    (await contender.filled(admin, "future", contender.options.rows)) ? {} : null,
  queued: async (admin, contender) => {
    await contender.empty(admin);
    await admin.fill("queued", contender.options.rows / 5);
    return { isPart: true };
  },
};

const names = {
  small: "",
  kept: " beside kept jobs",
  future: " beside future jobs",
  queued: " with many queued",
};
const units = {
  statements: "/job",
  "pages looked at": "/job",
  WAL: "bytes/job",
  "server CPU": "us/job",
  "client CPU": "us/job",
};

/**
 * Stores jobs one by one, with 50 calls in progress. Then one worker finishes them or, if the table contains other
 * waiting jobs, the same number of jobs.
 */
const cost = (table) => (contender) =>
  contender.administer(async (admin) => {
    const options = await tables[table](admin, contender);
    if (options === null) return null;
    const counted = async () => {
      await contender.settle(admin);
      const stored = await storing(contender, admin);
      const drained = await contender.drain(admin, stored.count + warmUp, options);
      return {
        ...perJob(`enqueue${names[table]}`, stored.count, stored),
        ...perJob(`drain${names[table]}`, drained.jobs, drained),
      };
    };
    return admin.client ? contender.counting(counted) : counted();
  });

async function storing(contender, admin) {
  const { longest } = contender.options;
  const producer = await contender.producer();
  try {
    await producer.call("enqueueSome", { count: warmUp, inFlight, ms: longest });
    const meter = await contender.meter(admin);
    const { count, cpuUs } = await producer.call("enqueueSome", {
      count: contender.jobs,
      inFlight,
      ms: longest,
    });
    return { count, cpuUs, ...(await meter.read()) };
  } finally {
    await producer.stop();
  }
}

const perJob = (what, jobs, { statements, blocks, walBytes, serverUs, cpuUs }) =>
  Object.fromEntries(
    Object.entries({
      statements,
      "pages looked at": blocks,
      WAL: walBytes,
      "server CPU": serverUs,
      "client CPU": cpuUs,
    })
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => [`cost of ${what}, ${name}`, value / jobs]),
  );

const scenario = (table, what) => ({
  what,
  figures: Object.fromEntries(
    ["enqueue", "drain"].flatMap((work) =>
      Object.entries(units).map(([name, unit]) => [
        `cost of ${work}${names[table]}, ${name}`,
        {
          unit,
          better: "lower",
          ...(table === "small" ? {} : { grownFrom: `cost of ${work}, ${name}` }),
        },
      ]),
    ),
  ),
  run: cost(table),
});

export const costScenarios = {
  cost: scenario("small", "statements, pages, WAL and CPU of one job, stored and finished"),
  "cost-kept": scenario("kept", "the same beside a million finished jobs"),
  "cost-future": scenario("future", "the same beside a million jobs of the future"),
  "cost-queued": scenario("queued", "the same while 200,000 others wait"),
};
