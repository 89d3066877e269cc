/**
 * The program of a worker thread: it runs one job at a time for the main thread. The task's log lines, progress and
 * signal go through the thread's port.
 */
import { setMaxListeners } from "node:events";
import { parentPort, receiveMessageOnPort } from "node:worker_threads";
import { type LogArguments, type Logger, readLogCall } from "../../logger.js";
import type { RunningJob, ThreadContext } from "../../tasks/task.js";
import { detailsOf, rebuilt } from "../settlement/error-details.js";
import { errorText } from "../settlement/error-text.js";
import type { FromThread, JobChange, LogLevel, ThreadEnd, ThreadJob, ToThread } from "./thread-messages.js";

if (!parentPort) throw new Error("thread-main is started by the worker, as a thread of its process");
const port = parentPort;
const say = (message: FromThread) => port.postMessage(message);

interface Run {
  id: number;
  controller: AbortController;
}

let current: Run | null = null;
let updates = 0;
const updating = new Map<number, { resolve: () => void; reject: (error: Error) => void }>();

function hear(message: ToThread): void {
  switch (message.kind) {
    case "run":
      void run(message.run, message.job);
      return;
    case "interrupt":
      if (current?.id !== message.run) return;
      current.controller.abort(rebuilt(message));
      return;
    case "updated": {
      const waiting = updating.get(message.id);
      updating.delete(message.id);
      if (message.error) waiting?.reject(rebuilt(message.error));
      else waiting?.resolve();
    }
  }
}

/** Handles the messages that arrived while a loop of the task blocked the event loop. */
function hearNow(): void {
  for (;;) {
    const next = receiveMessageOnPort(port);
    if (!next) return;
    hear(next.message as ToThread);
  }
}

port.on("message", hear);
// As in the main thread, a rejection that nobody handles is logged and does not end the thread.
process.on("unhandledRejection", (reason) => {
  logger({}).error({ reason: errorText(reason) }, "a promise was rejected in a thread and nobody handled it");
});

async function run(id: number, job: ThreadJob): Promise<void> {
  const own: Run = { id, controller: new AbortController() };
  setMaxListeners(0, own.controller.signal);
  current = own;
  const end = await endOf(own, job);
  current = null;
  say({ kind: "ended", end });
}

async function endOf(own: Run, job: ThreadJob): Promise<ThreadEnd> {
  let task: { run(ctx: ThreadContext, payload: unknown): unknown };
  try {
    const exported = (await import(job.module)) as Record<string, typeof task>;
    task = exported[job.exportName] as typeof task;
  } catch (error) {
    return { kind: "threw", error: detailsOf(error), unloaded: true };
  }
  try {
    return written(await task.run(contextOf(own, job), job.payload));
  } catch (error) {
    return { kind: "threw", error: detailsOf(error), unloaded: false };
  }
}

function written(value: unknown): ThreadEnd {
  try {
    const json = JSON.stringify(value) as string | undefined;
    if (json !== undefined || value === undefined) return { kind: "returned", json };
    return { kind: "unwritable", why: `a ${typeof value} has no JSON form` };
  } catch (error) {
    return { kind: "unwritable", why: detailsOf(error).message };
  }
}

function contextOf(own: Run, { fields, queueName, workerId }: ThreadJob): ThreadContext {
  const job: RunningJob = Object.assign(fields, {
    id: fields.key,
    update: async (change: JobChange) => {
      if (current !== own) return;
      const id = ++updates;
      const updated = new Promise<void>((resolve, reject) => updating.set(id, { resolve, reject }));
      say({ kind: "update", run: own.id, id, change });
      await updated;
      Object.assign(fields, change);
    },
  });
  return {
    job,
    queue: { name: queueName },
    workerId,
    log: logger({ job: fields.key, task: fields.function }),
    get signal() {
      hearNow();
      return own.controller.signal;
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
        say({ ...line, fields: { ...bound, ...fields } });
      } catch {
        // A field cannot be cloned, for instance a function: send the fields as JSON, or the line without them.
        say({ ...line, fields: { ...bound, ...plain(fields) } });
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

function plain(fields: object): object {
  try {
    return JSON.parse(JSON.stringify(fields)) as object;
  } catch {
    return {};
  }
}
