/** The commands that ask the database about queues and their workers. */
import type { Queue } from "../queue/queue.js";
import type { Flags } from "./arguments.js";
import { CliError, type ExitCode, exitCodes } from "./errors.js";
import { chooseQueues, loadApp } from "./load-app.js";
import { pausesTable } from "./pause.js";
import { table } from "./table.js";

/** `workers status`: asks the database. Litestar-SAQ's command of this name contacts nothing. */
export async function workersStatus({ config, queues: names }: Flags): Promise<ExitCode> {
  const saq = await loadApp(config);
  const queues = chooseQueues(saq, names);
  console.log("Checking SAQ worker status");
  try {
    const states = await Promise.all(queues.map(stateOf));
    const rows = states.map(({ name, counts, workers }) => [
      name,
      workers,
      counts.queued,
      counts.scheduled,
      counts.active + counts.aborting,
      counts.complete,
      counts.failed,
      counts.aborted,
    ]);
    console.log(
      table([
        ["queue", "workers", "queued", "scheduled", "running", "complete", "failed", "aborted"],
        ...rows,
      ]),
    );
    const paused = pausesTable(states);
    if (paused !== null) console.log(`\n${paused}`);
    const idle = states.filter(({ workers }) => workers === 0).map(({ name }) => name);
    if (idle.length === 0) return exitCodes.done;
    console.error(`No live worker: ${idle.join(", ")}. Start one: npm run workers:run`);
    return exitCodes.failed;
  } finally {
    await saq.close();
  }
}

async function stateOf(queue: Queue) {
  const [counts, workers, pauses] = await Promise.all([queue.counts(), queue.workers(), queue.pauses()]);
  return { name: queue.name, counts, workers: workers.length, pauses };
}

/**
 * `check`: works like Python SAQ's `--check` and prints the same texts. An unknown queue name is a failed check (exit
 * code 1), not a usage error.
 */
export async function check({ config, queues: names }: Flags): Promise<ExitCode> {
  const saq = await loadApp(config);
  const queues = chooseQueues(saq, names, (reason) => new CliError(`Health check failed. ${reason}`));
  try {
    const counted = await Promise.all(
      queues.map(async (queue) => ({ name: queue.name, workers: (await queue.workers()).length })),
    );
    for (const { name, workers } of counted) {
      if (workers > 0) console.log(`Found ${workers} active workers for queue ${name}`);
      else console.error(`No active workers found for queue ${name}`);
    }
    return counted.every(({ workers }) => workers > 0) ? exitCodes.done : exitCodes.failed;
  } finally {
    await saq.close();
  }
}
