// Parses the command line of run.js.
import { contestantNames } from "./contestants/index.js";
import { pickFrom, readOptions, whole } from "./options.js";
import { scenarios } from "./scenarios.js";

const scenarioNames = Object.keys(scenarios);
const ofAll = scenarioNames.filter((name) => !scenarios[name].isLong);

/** Maps each numeric option to its default. */
const numbers = {
  rounds: 7,
  jobs: 20_000,
  concurrency: 10,
  ms: 1_000,
  longest: 3_000,
  samples: 200,
  rows: 1_000_000,
  minutes: 10,
  rate: 500,
};
export const numberNames = Object.keys(numbers);

const width = Math.max(...scenarioNames.map((name) => name.length)) + 2;
const help = `Usage: node bench/run.js [options]

  --scenario LIST      see below; default: enqueue,drain,pickup
  --contestants LIST   ${contestantNames.join(", ")}; default: engine,minimal-wire
  --baseline NAME      ratios are to this one; default: minimal-wire where it takes part, else the first
  --rounds N           default ${numbers.rounds}
  --jobs N             jobs of a drain or a bulk enqueue, default ${numbers.jobs}
  --concurrency N      jobs that a worker runs at a time, default ${numbers.concurrency}
  --ms N               length of each measurement of a rate, default ${numbers.ms}
  --longest N          ms after which a drain counts for what is finished by then, default ${numbers.longest}
  --samples N          jobs of a latency measurement, default ${numbers.samples}
  --rows N             rows beside which is drained, default ${numbers.rows}
  --minutes N          length of the memory scenario, default ${numbers.minutes}
  --rate N             jobs a second of the memory scenario, default ${numbers.rate}
  --json FILE          write every figure of every round; written anew after each scenario
  --profile FOLDER     write CPU profiles of the measured processes (Node's --cpu-prof)
  -h, --help

Scenarios (all = every one but memory and change-many):
${Object.entries(scenarios)
  .map(([name, { what }]) => `  ${name.padEnd(width)}${what}`)
  .join("\n")}

node bench/table.js FILE... makes one table of such files.

engine-before is the engine of an older commit, which BENCH_BEFORE names (BENCH_BEFORE=v0.1.0, say).
engine-observed is the engine with subscribers on all its tracing channels.
All other contestants but engine, engine-observed, minimal-wire and saq need \`npm install\` in bench/ first.
Contestants on Redis take part where BENCH_REDIS_URL names a Redis; its databases 0 to 3 are emptied.
saq and saq-redis are SAQ for Python: they take part where BENCH_SAQ_PYTHON names a Python that can import it
(pip install "saq[postgres,redis]==0.26.3" "psycopg[binary]").

BENCH_DATABASE_URL     a server to use, as a superuser, instead of an embedded PostgreSQL; databases
                       named bench_... are made there and dropped
`;

export const readRunOptions = () =>
  readOptions({
    program: "bench/run.js",
    help,
    options: {
      scenario: { type: "string", default: "enqueue,drain,pickup" },
      contestants: { type: "string", default: "engine,minimal-wire" },
      baseline: { type: "string" },
      json: { type: "string" },
      profile: { type: "string" },
      ...Object.fromEntries(
        Object.entries(numbers).map(([name, value]) => [name, { type: "string", default: String(value) }]),
      ),
    },
    resolve: (values) => {
      const contestants = pickFrom(contestantNames, values.contestants, "contestants");
      return {
        ...values,
        scenarios: values.scenario === "all" ? ofAll : pickFrom(scenarioNames, values.scenario, "scenario"),
        contestants,
        baseline:
          values.baseline === undefined
            ? contestants.includes("minimal-wire")
              ? "minimal-wire"
              : contestants[0]
            : pickFrom(contestants, values.baseline, "baseline")[0],
        ...Object.fromEntries(numberNames.map((name) => [name, whole(name, values[name])])),
      };
    },
  });
