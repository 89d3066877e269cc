/**
 * The queues and routes of a server that starts its workers itself, in the place of the generated `app/queue/index.ts`.
 * SERVER holds the options as JSON. The server and its worker processes load this module.
 */
import { existsSync, writeSync } from "node:fs";
import { Router } from "express";
import { createSaq, defineQueue, defineSaq, type Logger } from "../../../../templates/backend/saq/index.js";
import { type LogArguments, readLogCall } from "../../../../templates/backend/saq/logger.js";
import { recordRunsAt, tasks } from "./tasks.js";

export interface ServerOptions {
  url: string;
  /** Worker processes for each queue. 0: the workers run in the server's process. @defaultValue 1 */
  workerProcesses?: number;
  /** Queues. @defaultValue default */
  queues?: string[];
  /** The start-up hook of each worker waits until this file exists. */
  startsWith?: string;
  /** A worker process that loads this module blocks until this file exists. */
  loadsWith?: string;
  /** What the start-up hook does instead of starting. */
  startFails?: "throws" | "exits" | "bug";
  /** The workers end when no job is left. */
  burst?: boolean;
  /** The grace period, s. @defaultValue 15 */
  grace?: number;
}

const options = JSON.parse(String(process.env.SERVER)) as ServerOptions;
/** The worker processes have their options as the first argument; the server has none. */
const isWorkerProcess = process.argv[2] !== undefined;

const makeLogger = (bound: object): Logger => {
  const at =
    (level: string) =>
    (...call: LogArguments) => {
      const { fields, message } = readLogCall(call);
      writeSync(1, `${JSON.stringify({ level, message, process: process.pid, ...bound, ...fields })}\n`);
    };
  return {
    debug: () => {},
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    child: (fields) => makeLogger({ ...bound, ...fields }),
  };
};
const logger = makeLogger({});

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** An error that a person can fix, as an application throws it. */
class ShopError extends Error {
  constructor() {
    super("the shop is closed");
    this.name = "ShopError";
  }
}

async function startup(): Promise<void> {
  logger.info("start-up hook");
  while (options.startsWith && !existsSync(options.startsWith)) await sleep(20);
  if (options.startFails === "throws") throw new ShopError();
  if (options.startFails === "bug") (undefined as unknown as () => void)();
  if (options.startFails === "exits") process.exit(7);
}

if (isWorkerProcess && options.loadsWith) {
  logger.info("loading");
  const never = new Int32Array(new SharedArrayBuffer(4));
  while (!existsSync(options.loadsWith)) Atomics.wait(never, 0, 0, 20);
}
recordRunsAt(options.url);

export const saq = createSaq(
  defineSaq({
    queues: (options.queues ?? ["default"]).map((name) =>
      defineQueue({
        name,
        dsn: options.url,
        tasks,
        startup,
        eventLoopDelay: 0,
        separateProcess: options.workerProcesses !== 0,
        shutdownGracePeriod: options.grace ?? 15,
        cancellationHardDeadline: 0.5,
        timers: { workerInfo: 0.5, lost: 0.5 },
        ...(options.burst && { burst: true, dequeueTimeout: 0.2 }),
      }),
    ),
    logger,
    useServerLifespan: true,
    workerProcesses: options.workerProcesses || 1,
  }),
);

export const queueRoutes = Router();
/** Is answered after 3 s. */
queueRoutes.get("/slow", (_req, res) => {
  setTimeout(() => res.end("done"), 3_000);
});
