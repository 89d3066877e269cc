#!/usr/bin/env node
// Compares job queues side by side: every round runs each contestant once, in fresh processes, in changing order.
import path from "node:path";
import { Contender } from "./contender.js";
import { contestantNames, loadContestant } from "./contestants/index.js";
import { createDatabase, dropDatabase, readSettings, startDatabase } from "./database.js";
import { buildEngine } from "./engine-build.js";
import { pickFrom, readOptions, whole, writeJson } from "./options.js";
import { environment, failureLines, inOneLine, summarise, toTable } from "./report.js";
import { figures, scenarios } from "./scenarios.js";
import { turnOf } from "./statistics.js";

const scenarioNames = Object.keys(scenarios);
const numbers = ["rounds", "jobs", "concurrency", "ms", "samples", "rows"];

const width = Math.max(...scenarioNames.map((name) => name.length)) + 2;
const help = `Usage: node bench/run.js [options]

  --scenario LIST      see below; default: enqueue,drain,pickup
  --contestants LIST   ${contestantNames.join(", ")}; default: engine,minimal-wire
  --baseline NAME      ratios are to this one; default: minimal-wire where it takes part, else the first
  --rounds N           default 7
  --jobs N             jobs of a drain or a bulk enqueue, default 20000
  --concurrency N      jobs that a worker runs at a time, default 10
  --ms N               length of each measurement of a rate, default 3000
  --samples N          jobs of a latency measurement, default 300
  --rows N             rows beside which is drained, default 1000000
  --json FILE          write every figure of every round
  --profile FOLDER     write CPU profiles of the measured processes (Node's --cpu-prof)
  -h, --help

Scenarios (all = every one):
${Object.entries(scenarios)
  .map(([name, { what }]) => `  ${name.padEnd(width)}${what}`)
  .join("\n")}

All contestants but engine, minimal-wire and saq need \`npm install\` in bench/ first. bullmq-redis takes part where
BENCH_REDIS_URL names a Redis; its database is emptied. saq is SAQ for Python: it takes part where BENCH_SAQ_PYTHON
names a Python that can import it (pip install "saq[postgres]==0.26.3" "psycopg[binary]").

BENCH_DATABASE_URL     a server to use, as a superuser, instead of an embedded PostgreSQL; databases
                       named bench_... are made there and dropped
`;

const options = readOptions({
  program: "bench/run.js",
  help,
  options: {
    scenario: { type: "string", default: "enqueue,drain,pickup" },
    contestants: { type: "string", default: "engine,minimal-wire" },
    baseline: { type: "string" },
    rounds: { type: "string", default: "7" },
    jobs: { type: "string", default: "20000" },
    concurrency: { type: "string", default: "10" },
    ms: { type: "string", default: "3000" },
    samples: { type: "string", default: "300" },
    rows: { type: "string", default: "1000000" },
    json: { type: "string" },
    profile: { type: "string" },
  },
  resolve: (values) => {
    const contestants = pickFrom(contestantNames, values.contestants, "contestants");
    return {
      ...values,
      scenarios: pickFrom(scenarioNames, values.scenario, "scenario"),
      contestants,
      baseline:
        values.baseline === undefined
          ? contestants.includes("minimal-wire")
            ? "minimal-wire"
            : contestants[0]
          : pickFrom(contestants, values.baseline, "baseline")[0],
      ...Object.fromEntries(numbers.map((name) => [name, whole(name, values[name])])),
    };
  },
});
if (options) {
  await run(options).catch((error) => {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  });
}

async function run(options) {
  const { rounds, baseline } = options;
  const say = (text) => process.stderr.write(`${text}\n`);
  const profileDir = options.profile ? path.resolve(options.profile) : undefined;
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(130));
  say("compiling the engine");
  buildEngine();
  const database = await startDatabase();
  const made = [];
  try {
    const contenders = [];
    const absent = [];
    for (const name of options.contestants) {
      const contestant = await loadContestant(name);
      if (contestant.absent) {
        absent.push(`${name} does not take part: ${contestant.absent}`);
        continue;
      }
      const databaseName = `bench_${name.replaceAll("-", "_")}`;
      if (!contestant.redis) made.push(databaseName);
      const renew = async () => {
        const url = contestant.redis
          ? process.env.BENCH_REDIS_URL
          : await createDatabase(database.url, databaseName);
        await contestant.install(url);
        return url;
      };
      contenders.push(new Contender({ name, contestant, url: await renew(), renew, options, profileDir }));
    }
    const samples = Object.fromEntries(contenders.map(({ name }) => [name, {}]));
    const failures = [];
    for (const scenario of options.scenarios) {
      for (let round = 0; round < rounds; round++) {
        const shapes = new Map();
        for (const contender of turnOf(contenders, round)) {
          say(`${scenario}, round ${round + 1} of ${rounds}: ${contender.name}`);
          try {
            const measured = await scenarios[scenario].run(contender);
            if (measured === null) {
              say("  has no such thing");
              continue;
            }
            const { shape, ...values } = measured;
            if (shape !== undefined) shapes.set(contender.name, shape);
            for (const [figure, value] of Object.entries(values)) {
              samples[contender.name][figure] ??= Array(rounds).fill(undefined);
              samples[contender.name][figure][round] = value;
              say(`  ${figure}: ${value.toFixed(2)}`);
            }
          } catch (error) {
            failures.push(`${scenario}, round ${round + 1}, ${contender.name}: ${error.message}`);
            say(`  ${error.message}`);
          }
        }
        checkShapes(shapes, failures);
      }
    }
    const report = {
      environment: {
        ...environment(["../templates/backend/saq", "."]),
        postgres: await readSettings(database.url),
      },
      versions: Object.fromEntries(contenders.map(({ name, contestant }) => [name, contestant.version])),
      options: Object.fromEntries(numbers.map((name) => [name, options[name]])),
      baseline,
      figures: summarise(samples, baseline, figures),
      failures: [...absent, ...new Set(failures)],
    };
    print(report);
    if (options.json) writeJson(options.json, report);
    if (failures.length > 0) process.exitCode = 1;
  } finally {
    for (const name of made) await dropDatabase(database.url, name);
    await database.stop();
  }
}

/** A contestant that stored less than the others would win by it. */
function checkShapes(shapes, failures) {
  const [first, ...others] = shapes;
  for (const [name, shape] of others) {
    if (shape !== first[1]) {
      failures.push(`${name} and ${first[0]} do not store the same:\n  ${shape}\n  ${first[1]}`);
    }
  }
}

function print({ environment: { postgres, ...machine }, versions, options, baseline, figures, failures }) {
  process.stdout.write(
    [
      inOneLine(machine),
      `PostgreSQL: ${inOneLine(postgres)}`,
      `contestants: ${inOneLine(versions)}`,
      `options: ${inOneLine(options)}`,
      "",
      toTable(figures, baseline),
      ...failureLines(failures),
      "",
    ].join("\n"),
  );
}
