/** The program of a worker process that another process starts. Its options are the first argument, as JSON. */
import { explain } from "../explain-error.js";
import { ParentProcess, type WorkerProgramOptions } from "../worker/index.js";
import { loadSaq } from "./load-saq.js";
import { runQueues } from "./run-queues.js";

/**
 * How long the process waits at its end, ms, for what the application's modules have left open, such as a connection.
 * Then it exits.
 */
const exitDelayMs = 1_000;

const options = JSON.parse(process.argv[2] ?? "") as WorkerProgramOptions;
// Before the application's modules load: the parent may end while they do.
const parent = new ParentProcess(options);
const fail = (error: unknown) => parent.report({ saq: "failed", reason: explain(error) });
try {
  const saq = await loadSaq(options.module);
  const queues =
    options.queues.length === 0
      ? saq.taskQueues.all()
      : options.queues.map((name) => saq.taskQueues.get(name));
  const { exitCode, isFinished } = await runQueues(saq, queues, options.queues, {
    reloader: options.reloader,
    stopSource: parent.stopSource,
    onReady: () => parent.report({ saq: "ready" }),
    onStartError: fail,
  });
  if (isFinished) parent.report({ saq: "finished" });
  process.exitCode = exitCode;
} catch (error) {
  fail(error);
  process.exitCode = 1;
}
await parent.leave();
setTimeout(() => process.exit(), exitDelayMs).unref();
