/**
 * The program of a worker thread: it runs one job at a time for the main thread. The task's log lines, progress and
 * signal go through the thread's port.
 */
import { setMaxListeners } from "node:events";
import { parentPort, receiveMessageOnPort } from "node:worker_threads";
import { historyOf } from "../../core/attempt-history.js";
import { withEngineMembers } from "../../core/job-meta.js";
import { type LogArguments, type Logger, readLogCall } from "../../logger.js";
import { isNoRetry } from "../../tasks/no-retry.js";
import { Snooze, snooze, snoozeOf } from "../../tasks/snooze.js";
import type { RunningJob, ThreadContext } from "../../tasks/task.js";
import { runInContext } from "../../telemetry/thread-context.js";
import { detailsOf, rebuilt } from "../settlement/error-details.js";
import { errorText } from "../settlement/error-text.js";
import type { FromThread, JobChange, LogLevel, ThreadEnd, ThreadJob, ToThread } from "./thread-messages.js";

if (!parentPort) throw new Error("thread-main must run in a worker thread; the engine's worker starts it");
const port = parentPort;
const send = (message: FromThread) => port.postMessage(message);

interface Run {
  id: number;
  controller: AbortController;
}

let current: Run | null = null;
let lastUpdateId = 0;
/** The calls of `ctx.job.update` that wait for their result, by id. */
const pendingUpdates = new Map<number, { resolve: () => void; reject: (error: Error) => void }>();

function receive(message: ToThread): void {
  switch (message.kind) {
    case "run":
      void runJob(message.run, message.job);
      return;
    case "interrupt":
      if (current?.id !== message.run) return;
      current.controller.abort(rebuilt(message));
      return;
    case "updated": {
      const waiting = pendingUpdates.get(message.id);
      pendingUpdates.delete(message.id);
      if (message.error) waiting?.reject(rebuilt(message.error));
      else waiting?.resolve();
    }
  }
}

/** Handles the messages that arrived while a loop of the task blocked the event loop. */
function receivePending(): void {
  for (;;) {
    const next = receiveMessageOnPort(port);
    if (!next) return;
    receive(next.message as ToThread);
  }
}

port.on("message", receive);
// As in the main thread, an unhandled rejection is logged and does not end the thread.
process.on("unhandledRejection", (reason) => {
  logger({}).error(
    { reason: errorText(reason) },
    "unhandled promise rejection in a thread: no code handled the failure of a promise",
  );
});

async function runJob(id: number, job: ThreadJob): Promise<void> {
  const run: Run = { id, controller: new AbortController() };
  setMaxListeners(0, run.controller.signal);
  current = run;
  const end = await runTask(run, job);
  current = null;
  send({ kind: "ended", end });
}

async function runTask(run: Run, job: ThreadJob): Promise<ThreadEnd> {
  let task: { run(ctx: ThreadContext, payload: unknown): unknown };
  try {
    const exported = (await import(job.module)) as Record<string, typeof task>;
    task = exported[job.exportName] as typeof task;
  } catch (error) {
    return { kind: "threw", error: detailsOf(error), loadFailed: true, noRetry: isNoRetry(error) };
  }
  try {
    const call = () => task.run(contextOf(run, job), job.payload);
    return encodeResult(await (job.otelContext ? runInContext(job.otelContext, call) : call()));
  } catch (error) {
    const snoozed = snoozeOf(error);
    if (snoozed) return { kind: "snoozed", seconds: snoozed.seconds, wasReturned: false };
    return { kind: "threw", error: detailsOf(error), loadFailed: false, noRetry: isNoRetry(error) };
  }
}

function encodeResult(value: unknown): ThreadEnd {
  if (value instanceof Snooze) return { kind: "snoozed", seconds: value.seconds, wasReturned: true };
  try {
    const json = JSON.stringify(value) as string | undefined;
    if (json !== undefined || value === undefined) return { kind: "returned", json };
    return { kind: "unserializable", reason: `a ${typeof value} has no JSON form` };
  } catch (error) {
    return { kind: "unserializable", reason: detailsOf(error).message };
  }
}

function contextOf(run: Run, { fields, queueName, workerId }: ThreadJob): ThreadContext {
  const job: RunningJob = {
    ...fields,
    id: fields.key,
    // An update of `meta` does not change the history.
    history: historyOf(fields),
    update: async (change: JobChange) => {
      if (current !== run) return;
      const id = ++lastUpdateId;
      const updated = new Promise<void>((resolve, reject) => pendingUpdates.set(id, { resolve, reject }));
      send({ kind: "update", run: run.id, id, change });
      await updated;
      Object.assign(job, change, change.meta && { meta: withEngineMembers(job.meta, change.meta) });
    },
  };
  return {
    job,
    queue: { name: queueName },
    workerId,
    log: logger({ job: fields.key, task: fields.function }),
    snooze,
    get signal() {
      receivePending();
      return run.controller.signal;
    },
  };
}

function logger(bound: Record<string, unknown>): Logger {
  const at =
    (level: LogLevel) =>
    (...call: LogArguments) => {
      const { fields, message } = readLogCall(call);
      const line = { kind: "log", level, message } as const;
      try {
        send({ ...line, fields: { ...bound, ...fields } });
      } catch {
        // A field cannot be cloned, for instance a function: send the fields as JSON, or the line without them.
        send({ ...line, fields: { ...bound, ...toPlainFields(fields) } });
      }
    };
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    child: (fields) => logger({ ...bound, ...fields }),
  };
}

function toPlainFields(fields: object): object {
  try {
    return JSON.parse(JSON.stringify(fields)) as object;
  } catch {
    return {};
  }
}
