/**
 * A worker thread, as the main thread sees it. It runs one job at a time and is used again. A run is over when its task
 * has ended or when the thread itself has ended, never before.
 */
import { Worker } from "node:worker_threads";
import type { Logger } from "../../logger.js";
import { asNoRetry } from "../../tasks/no-retry.js";
import { Snooze } from "../../tasks/snooze.js";
import type { Context } from "../../tasks/task.js";
import { detailsOf, rebuilt } from "../settlement/error-details.js";
import type { FromThread, JobChange, ThreadEnd, ThreadJob, ToThread } from "./thread-messages.js";

/** What a run needs from its attempt. */
type RunHost = Pick<Context, "job" | "signal">;

interface Run {
  id: number;
  host: RunHost;
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
}

const threadProgram = new URL(
  import.meta.url.endsWith(".ts") ? "./thread-dev.js" : "./thread-main.js",
  import.meta.url,
);

export class Thread {
  /** Resolves when the thread has ended. */
  readonly exited: Promise<void>;
  readonly #worker: Worker;
  readonly #logger: Logger;
  #runs = 0;
  #run: Run | null = null;
  #isUnusable = false;

  constructor(logger: Logger) {
    this.#logger = logger;
    // The environment as it is now, so that the thread also has settings that were read from a file or set by a test.
    const env = { ...process.env };
    this.#worker = new Worker(threadProgram, { name: "saq", env });
    let failure: Error | null = null;
    this.#worker.on("message", (message: FromThread) => this.#receive(message));
    this.#worker.on("error", (error: Error) => {
      failure = rebuilt(detailsOf(error));
    });
    this.exited = new Promise((resolve) => {
      this.#worker.once("exit", (code) => {
        this.#isUnusable = true;
        this.#end((run) => run.reject(failure ?? endedEarly(code)));
        resolve();
      });
    });
  }

  /** True if the thread takes no more jobs: it has ended, or a module could not be loaded in it. */
  get isUnusable(): boolean {
    return this.#isUnusable;
  }

  /**
   * Runs one job. Settles when its task or the thread has ended.
   *
   * @throws the task's own error or snooze, or an error that says how the thread ended
   */
  async run(job: ThreadJob, host: RunHost): Promise<unknown> {
    const id = ++this.#runs;
    // A thread keeps the process alive only while it runs a job.
    this.#worker.ref();
    const onAbort = () => {
      const { name, message } = host.signal.reason as Error;
      this.#send({ kind: "interrupt", run: id, name, message });
    };
    try {
      return await new Promise((resolve, reject) => {
        this.#run = { id, host, resolve, reject };
        this.#send({ kind: "run", run: id, job });
        host.signal.addEventListener("abort", onAbort);
      });
    } finally {
      this.#run = null;
      host.signal.removeEventListener("abort", onAbort);
      this.#worker.unref();
    }
  }

  /** Ends the thread, whatever it does. Only a call of native code that does not return can delay the end. */
  async terminate(): Promise<void> {
    this.#isUnusable = true;
    await this.#worker.terminate();
    await this.exited;
  }

  #send(message: ToThread): void {
    this.#worker.postMessage(message);
  }

  #receive(message: FromThread): void {
    switch (message.kind) {
      case "log":
        this.#logger[message.level](message.fields, message.message);
        return;
      case "update":
        void this.#update(message.run, message.id, message.change);
        return;
      case "ended":
        this.#isUnusable ||= message.end.kind === "threw" && message.end.loadFailed;
        this.#end((run) => settle(run, message.end));
    }
  }

  async #update(run: number, id: number, change: JobChange): Promise<void> {
    let error: unknown = null;
    // Code that a task has left running may still send changes of a job that is over.
    if (this.#run?.id === run) {
      await this.#run.host.job.update(change).catch((thrown: unknown) => {
        error = thrown;
      });
    }
    this.#send({ kind: "updated", id, error: error === null ? null : detailsOf(error) });
  }

  #end(settleRun: (run: Run) => void): void {
    const run = this.#run;
    this.#run = null;
    if (run) settleRun(run);
  }
}

function settle({ resolve, reject }: Run, end: ThreadEnd): void {
  switch (end.kind) {
    case "returned":
      resolve(end.json === undefined ? undefined : JSON.parse(end.json));
      return;
    case "unserializable":
      resolve({
        toJSON: () => {
          throw new Error(end.reason);
        },
      });
      return;
    case "snoozed":
      (end.wasReturned ? resolve : reject)(new Snooze(end.seconds));
      return;
    case "threw":
      reject(end.noRetry ? asNoRetry(rebuilt(end.error)) : rebuilt(end.error));
  }
}

const endedEarly = (code: number): Error =>
  new Error(
    `the job's thread ended with exit code ${code} before its task ended: code in the thread called process.exit()`,
  );
