/** A program that runs a worker. Its first argument is the options as JSON. It logs JSON lines. */
import { writeSync } from "node:fs";
import {
  createSaq,
  defineQueue,
  defineSaq,
  type Logger,
  runWorkers,
} from "../../../../templates/backend/saq/index.js";
import { type LogArguments, readLogCall } from "../../../../templates/backend/saq/logger.js";
import type { WorkerProcessOptions } from "./child.js";
import { recordRunsAt, tasks, tasksWithThreads } from "./tasks.js";

const {
  url,
  runsUrl = url,
  withThreads,
  reloader,
  throwingLogger,
  quiet,
  ...queue
} = JSON.parse(process.argv[2] ?? "") as WorkerProcessOptions;

function say(level: string, bound: object, call: LogArguments): void {
  const { fields, message } = readLogCall(call);
  const { err, ...rest } = fields as { err?: Error };
  writeSync(1, `${JSON.stringify({ level, message, ...bound, ...rest, err: err?.stack ?? err })}\n`);
  if (throwingLogger) throw new Error("the logger is broken");
}

const makeLogger = (bound: object): Logger => ({
  debug: (...call) => say("debug", bound, call),
  info: (...call) => say("info", bound, call),
  warn: (...call) => say("warn", bound, call),
  error: (...call) => say("error", bound, call),
  child: (fields) => makeLogger({ ...bound, ...fields }),
  isLevelEnabled: (level) => !quiet || level !== "info",
});

recordRunsAt(runsUrl);
const logger = makeLogger({});
// On a loaded machine the event loop is blocked for other reasons than a task: no test counts that warning by chance.
const options = { name: "default", dsn: url, eventLoopDelay: 0, ...queue };
const defined = withThreads
  ? defineQueue({ ...options, tasks: tasksWithThreads })
  : defineQueue({ ...options, tasks });
const saq = createSaq(defineSaq({ queues: [defined], logger }));
const running = runWorkers(saq, { logger, reloader });
// Logged once the signal handlers are in place: a test may send a signal as soon as it reads this line.
if (!throwingLogger) logger.info({}, "loaded");
process.exitCode = await running;
