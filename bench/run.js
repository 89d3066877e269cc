#!/usr/bin/env node
// Compares job queues with each other. Every round runs each contestant once, in new processes. The order changes.
import path from "node:path";
import { Contender } from "./contender.js";
import { loadContestant } from "./contestants/index.js";
import { createDatabase, dropDatabase, readSettings, startDatabase } from "./database.js";
import { buildEngine, buildEngineOf } from "./engine-build.js";
import { writeJson } from "./options.js";
import { environment, failureLines, inOneLine, summarise, toTable } from "./report.js";
import { numberNames, readRunOptions } from "./run-options.js";
import { figures, scenarios } from "./scenarios.js";
import { turnOf } from "./statistics.js";

const redisUrl = process.env.BENCH_REDIS_URL;

const say = (text) => process.stderr.write(`${text}\n`);

const options = readRunOptions();
if (options) {
  await run(options).catch((error) => {
    say(error.message);
    process.exitCode = 1;
  });
}

async function run(options) {
  const { baseline, json } = options;
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(130));
  say("compiling the engine");
  buildEngine();
  if (options.contestants.some((name) => name.endsWith("-before")) && process.env.BENCH_BEFORE)
    buildEngineOf(process.env.BENCH_BEFORE);
  const database = await startDatabase();
  const made = [];
  try {
    const { contenders, absent } = await prepare(options, database.url, made);
    const samples = Object.fromEntries(contenders.map(({ name }) => [name, {}]));
    const failures = new Set(absent);
    const place = {
      ...environment(["../templates/backend/saq", "."]),
      postgres: await readSettings(database.url),
    };
    const report = () => ({
      environment: place,
      versions: Object.fromEntries(contenders.map(({ name, contestant }) => [name, contestant.version])),
      options: Object.fromEntries(numberNames.map((name) => [name, options[name]])),
      baseline,
      figures: summarise(samples, baseline, figures),
      failures: [...failures],
    });
    for (const scenario of options.scenarios) {
      const start = performance.now();
      await measure(scenario, contenders, options.rounds, samples, failures);
      say(`${scenario}: ${Math.round((performance.now() - start) / 1_000)} s in all`);
      // Written after each scenario, so that an interrupted run keeps its results so far.
      if (json) writeJson(json, report());
    }
    print(report());
    if (failures.size > absent.length) process.exitCode = 1;
  } finally {
    for (const name of made) await dropDatabase(database.url, name);
    await database.stop();
  }
}

/**
 * Returns the contestants, each with its own database, and the reasons why others do not take part. The names of the
 * new databases are added to `made`.
 */
async function prepare(options, serverUrl, made) {
  const contenders = [];
  const absent = [];
  const profileDir = options.profile ? path.resolve(options.profile) : undefined;
  for (const name of options.contestants) {
    const contestant = await loadContestant(name);
    const { redisDatabase } = contestant;
    const reason =
      contestant.absent ??
      (redisDatabase !== undefined && !redisUrl ? "BENCH_REDIS_URL names no Redis" : null);
    if (reason) {
      absent.push(`${name} does not take part: ${reason}`);
      continue;
    }
    const databaseName = `bench_${name.replaceAll("-", "_")}`;
    if (redisDatabase === undefined) made.push(databaseName);
    const renew = async () => {
      const url =
        redisDatabase === undefined
          ? await createDatabase(serverUrl, databaseName)
          : new URL(`/${redisDatabase}`, redisUrl).href;
      await contestant.install(url);
      return url;
    };
    contenders.push(new Contender({ name, contestant, url: await renew(), renew, options, profileDir }));
  }
  return { contenders, absent };
}

/** Runs all rounds of one scenario. Values are added to `samples`, error messages to `failures`. */
async function measure(scenario, contenders, rounds, samples, failures) {
  const { run, isTogether } = scenarios[scenario];
  for (let round = 0; round < rounds; round++) {
    const place = `${scenario}, round ${round + 1} of ${rounds}`;
    const shapes = new Map();
    const turn = async (contender) => {
      const { name } = contender;
      const start = performance.now();
      try {
        const measured = await run(contender);
        say(`${place}: ${name}, ${((performance.now() - start) / 1_000).toFixed(1)} s`);
        if (measured === null) {
          say("  has no such thing");
          return;
        }
        const { shape, ...values } = measured;
        if (shape !== undefined) shapes.set(name, shape);
        for (const [figure, value] of Object.entries(values)) {
          samples[name][figure] ??= Array(rounds).fill(undefined);
          samples[name][figure][round] = value;
          say(`  ${figure}: ${value.toFixed(2)}`);
        }
      } catch (error) {
        failures.add(`${place}, ${name}: ${error.message}`);
        say(`${place}: ${name}\n  ${error.message}`);
      }
    };
    const order = turnOf(contenders, round);
    if (isTogether) await Promise.all(order.map(turn));
    else for (const contender of order) await turn(contender);
    checkShapes(shapes, failures);
  }
}

/** Adds a failure if contestants store different data: one that stores less would have an unfair advantage. */
function checkShapes(shapes, failures) {
  const [first, ...others] = shapes;
  for (const [name, shape] of others) {
    if (shape !== first[1])
      failures.add(`${name} and ${first[0]} do not store the same:\n  ${shape}\n  ${first[1]}`);
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
