/** `workers run`: runs workers in this process and, with --workers, in more processes beside it, each a full worker. */
import type { Saq } from "../express/create-saq.js";
import { workerProgram } from "../express/program-paths.js";
import { runQueues } from "../express/run-queues.js";
import type { Queue } from "../queue/queue.js";
import { connectWithRetry, signalSource, WorkerProcesses } from "../worker/index.js";
import type { Flags } from "./arguments.js";
import { type ExitCode, exitCodes } from "./errors.js";
import { chooseQueues, loadApp, modulePath } from "./load-app.js";
import { table } from "./table.js";

export async function workersRun({ config, queues: names, workers, debug }: Flags): Promise<ExitCode> {
  const saq = await loadApp(config);
  const queues = chooseQueues(saq, names);
  // Connect before other processes start: when the database is down, the user sees one error, not one for each process.
  if (!(await connectAll(saq, queues))) {
    await saq.close();
    return exitCodes.done;
  }
  console.log(banner(queues, workers, debug));

  const processes = new WorkerProcesses({
    processes: Array.from({ length: workers - 1 }, (_, index) => ({
      name: `worker-${index + 2}`,
      queues: names,
    })),
    program: workerProgram,
    module: modulePath(config),
    queues: queues.map((queue) => queue.config),
    logger: saq.logger,
  });
  // A supervisor may signal only this process.
  const endListening = signalSource()({
    stop: ({ grace }) => processes.requestStop(grace),
    hurry: () => processes.hurry(),
  });
  processes.launch();
  const { exitCode, isFinished } = await runQueues(saq, queues, names);
  // The worker here has nothing left to do. The others will end by themselves too.
  if (isFinished) await processes.ended();
  const highestCode = await processes.stop();
  endListening();
  return exitCode === 0 && highestCode === 0 ? exitCodes.done : exitCodes.failed;
}

/** Returns false if a stop signal ended the wait for the database. */
async function connectAll({ logger }: Saq, queues: readonly Queue[]): Promise<boolean> {
  const stopped = new AbortController();
  const { signal } = stopped;
  const stop = () => stopped.abort();
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  try {
    await Promise.all(queues.map((queue) => connectWithRetry(queue, { logger, signal })));
    return !signal.aborted;
  } finally {
    process.off("SIGINT", stop);
    process.off("SIGTERM", stop);
  }
}

function banner(queues: readonly Queue[], processes: number, debug: boolean): string {
  const rule = "-".repeat(20);
  const rows = [
    ["Queues", queues.map(({ name, config }) => `${name} (concurrency ${config.concurrency})`).join(", ")],
    ["Number of processes", String(processes)],
    ["Debug mode", debug ? "on" : "off"],
    ["Node.js", process.version],
  ];
  return `${rule} Starting SAQ Workers ${rule}\n${table([["Setting", "Value"], ...rows])}`;
}
