// The benchmark of SAQ for Python, with the same steps.
import { checkCounts } from "../contender.js";

const perSecond = { unit: "jobs/s", better: "higher" };
const jobs = 1_000;
const concurrency = 10;
const everyMs = 100;

async function saqBenchmark(contender) {
  await contender.fresh();
  return contender.administer(async (admin) => {
    const both = await contender.both();
    try {
      const steps = { jobs, concurrency, everyMs, ms: contender.options.longest };
      const { enqueued, finished, runs, left } = await both.call("saqBenchmark", steps);
      if (left === 0) await checkCounts(contender.name, jobs, runs, admin);
      return { "SAQ's benchmark, enqueue": enqueued, "SAQ's benchmark, process": finished };
    } finally {
      await both.stop();
    }
  });
}

export const saqBenchmarkScenarios = {
  "saq-benchmark": {
    what: "SAQ's own: 1,000 no-op jobs stored at once, then 10 at a time until a count every 0.1 s finds none left",
    figures: { "SAQ's benchmark, enqueue": perSecond, "SAQ's benchmark, process": perSecond },
    run: saqBenchmark,
  },
};
