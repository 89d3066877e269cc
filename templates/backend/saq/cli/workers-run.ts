/** `workers run`: runs workers in this process and, with --workers, in more processes beside it, each a full worker. */
import { fileURLToPath } from "node:url";
import type { Saq } from "../express/create-saq.js";
import type { Queue } from "../queue/queue.js";
import { type ConnectOptions, connectWithRetry, runWorkers, Worker } from "../worker/index.js";
import type { Flags } from "./arguments.js";
import { Children } from "./children.js";
import { type ExitCode, exitCodes } from "./errors.js";
import { chooseQueues, loadApp } from "./load-app.js";
import { table } from "./table.js";

/** The options that are passed to a child process. */
export type ChildOptions = Pick<Flags, "config" | "queues">;

/** How long a worker needs after its grace period and hard deadline to record results and to disconnect, s. */
const disconnectSeconds = 2;

const childProgram = fileURLToPath(
  new URL(import.meta.url.endsWith(".ts") ? "./child-dev.js" : "./child.js", import.meta.url),
);

export async function workersRun({ config, queues: names, workers, debug }: Flags): Promise<ExitCode> {
  const saq = await loadApp(config);
  const queues = chooseQueues(saq, names);
  // Connect before other processes start: when the database is down, the user sees one error, not one for each process.
  if (!(await connectAll(saq, queues))) {
    await saq.close();
    return exitCodes.done;
  }
  console.log(banner(queues, workers, debug));

  const options: ChildOptions = { config, queues: names };
  const children = new Children(workers - 1, childProgram, [JSON.stringify(options)], saq.logger);
  let signalled = false;
  const forwardSignal = (signal: NodeJS.Signals) => {
    signalled = true;
    children.signal(signal);
  };
  process.on("SIGINT", forwardSignal);
  process.on("SIGTERM", forwardSignal);
  const ownCode = await runQueues(saq, queues, names);
  // This worker ended without a signal and without an error: it has nothing left to do. The others will end by
  // themselves too.
  if (!signalled && ownCode === 0) await children.ended();
  if (!signalled) children.signal("SIGTERM");
  const childCode = await children.stop(stopTimeoutMs(queues));
  process.off("SIGINT", forwardSignal);
  process.off("SIGTERM", forwardSignal);
  return ownCode === 0 && childCode === 0 ? exitCodes.done : exitCodes.failed;
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

/**
 * Runs the workers of these queues in this process until a signal; returns the exit code. If queues are named, they run
 * here even when their worker usually runs inside the web process.
 */
export function runQueues(saq: Saq, queues: readonly Queue[], names: readonly string[]): Promise<number> {
  const host = {
    connect: async ({ signal }: ConnectOptions) => {
      await Promise.all(queues.map((queue) => connectWithRetry(queue, { logger: saq.logger, signal })));
    },
    workers: (options: { logger: Saq["logger"] }) => queues.map((queue) => new Worker(queue, options)),
    close: () => saq.close(),
  };
  return runWorkers(host, { logger: saq.logger, ...(names.length > 0 && { queues: names }) });
}

function stopTimeoutMs(queues: readonly Queue[]): number {
  const seconds = queues.map(
    ({ config }) => config.shutdownGracePeriod + config.cancellationHardDeadline + disconnectSeconds,
  );
  return Math.max(...seconds) * 1_000;
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
