// Measures whether memory and connections stay constant during minutes of steady work.
import { sleep } from "../clock.js";
import { connectionsOf } from "../connections.js";
import { quantile, slope } from "../statistics.js";

const mebibyte = 2 ** 20;
const everyMs = 5_000;
const toldMs = 60_000;
const longestWarmUpMs = 60_000;
const atEachEnd = 3;

/** For `minutes`, after a warm-up, one process stores `rate` jobs per second and another process runs them. */
async function memory(contender) {
  if (contender.contestant.command) return null;
  const { concurrency, minutes, rate } = contender.options;
  const ms = minutes * 60_000;
  const warmUpMs = Math.min(longestWarmUpMs, ms / 5);
  await contender.fresh();
  const worker = await contender.worker();
  const producer = await contender.producer();
  try {
    await worker.call("work", { concurrency });
    const producing = producer.call("enqueueSteadily", { rate, ms: warmUpMs + ms });
    await sleep(warmUpMs);
    const samples = await watch({ worker, producer }, contender.url, ms);
    const stored = await producing;
    // The worker needs a moment for the jobs that were stored last.
    await sleep(1_000);
    const { count } = await worker.call("report");
    if (count < stored * 0.99) throw new Error(`${stored} jobs were stored, and only ${count} of them ran`);
    return { "memory, jobs": count, ...summed(samples, "worker"), ...summed(samples, "producer") };
  } finally {
    await producer.stop();
    await worker.stop();
  }
}

async function watch(processes, url, ms) {
  const samples = [];
  const start = performance.now();
  let told = start;
  while (performance.now() - start < ms) {
    const sample = { minute: (performance.now() - start) / 60_000 };
    for (const [role, process] of Object.entries(processes))
      sample[role] = { ...(await process.call("memory")), connections: connectionsOf(process.pid, url) };
    samples.push(sample);
    if (performance.now() - told >= toldMs) {
      told = performance.now();
      tell(sample);
    }
    await sleep(everyMs);
  }
  return samples;
}

const tell = ({ minute, worker, producer }) =>
  process.stderr.write(
    `  minute ${minute.toFixed(1)}: live heap ${inMiB(worker.live)} and ${inMiB(producer.live)} MiB, resident ${inMiB(worker.resident)} and ${inMiB(producer.resident)} MiB\n`,
  );

const inMiB = (bytes) => (bytes / mebibyte).toFixed(2);

function summed(samples, role) {
  const result = {
    [`memory, ${role}, most connections`]: Math.max(...samples.map((one) => one[role].connections)),
  };
  for (const kind of ["live", "resident"]) {
    const values = samples.map((one) => one[role][kind]);
    const name = `memory, ${role}, ${names[kind]}`;
    result[`${name} at the start`] = quantile(values.slice(0, atEachEnd), 0.5) / mebibyte;
    result[`${name} at the end`] = quantile(values.slice(-atEachEnd), 0.5) / mebibyte;
    result[`${name}, growth`] = slope(samples.map((one) => [one.minute, one[role][kind] / 1_024]));
  }
  return result;
}

const names = { live: "live heap", resident: "resident" };
const lower = (unit) => ({ unit, better: "lower" });

export const memoryScenarios = {
  memory: {
    what: "memory and connections of a producer and a worker over --minutes of --rate jobs/s; not part of all",
    isLong: true,
    figures: {
      "memory, jobs": { unit: "", better: "higher" },
      ...Object.fromEntries(
        ["worker", "producer"].flatMap((role) => [
          [`memory, ${role}, most connections`, lower("")],
          ...Object.values(names).flatMap((name) => [
            [`memory, ${role}, ${name} at the start`, lower("MiB")],
            [`memory, ${role}, ${name} at the end`, lower("MiB")],
            [`memory, ${role}, ${name}, growth`, lower("KiB/min")],
          ]),
        ]),
      ),
    },
    run: memory,
  },
};
