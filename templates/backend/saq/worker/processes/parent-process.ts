/**
 * The process that started this worker process: passes on its requests, and notices its end.
 *
 * Without its parent, a worker process would run for ever beside the workers of the next parent, and with code that may
 * be outdated. When the parent ends, even by SIGKILL, the channel to it closes, and the workers here stop as at a
 * signal. A task that blocks the event loop keeps this process from noticing that. Therefore a thread looks for the
 * parent too, and kills the process if it has not ended in time.
 */
import { Worker as Thread } from "node:worker_threads";
import { withTimeout } from "../../timers.js";
import { reloadGraceSeconds, type StopListener, type StopRequest, type StopSource } from "../stop-signals.js";
import { type ChildMessage, isEngineMessage, type ParentMessage } from "./messages.js";

export interface ParentOptions {
  /** Process id of the parent. */
  parent: number;
  /** Maximum time between the end of the parent and the end of this process, s. */
  stopTimeout: number;
  /** The parent is restarted on each save: when it ends, running jobs get 1 s. */
  reloader: boolean;
}

/** Time for the last messages to reach the parent, ms. */
const sendTimeoutMs = 1_000;

/**
 * The program of the thread. It is a text, so that it needs no loader of TypeScript. On Windows the id of the parent
 * never changes: there only the channel shows that the parent has ended.
 */
const watchdogProgram = `
const { parent, stopTimeoutMs } = require("node:worker_threads").workerData;
const timer = setInterval(() => {
  if (process.ppid === parent) return;
  clearInterval(timer);
  setTimeout(() => process.kill(process.pid, "SIGKILL"), stopTimeoutMs);
}, 1_000);
`;

export class ParentProcess {
  readonly #options: ParentOptions;
  #listener: StopListener | null = null;
  #sent: Promise<void> = Promise.resolve();

  /**
   * Begins to watch the parent. Until there is a listener, no job runs here: a request to stop and the end of the
   * parent then end this process at once.
   */
  constructor(options: ParentOptions) {
    this.#options = options;
    // The parent may have ended while this program was loaded, before anything listened to the channel.
    if (!process.connected) process.exit();
    process.on("message", this.#onMessage);
    process.once("disconnect", this.#onDisconnect);
    startWatchdog(options);
  }

  /** Passes the requests of the parent on to a listener. */
  readonly stopSource: StopSource = (listener) => {
    this.#listener = listener;
    return () => {
      this.#listener = null;
    };
  };

  /** Sends a message to the parent. Does nothing if the parent has ended. */
  report(message: ChildMessage): void {
    if (!process.connected) return;
    const sent = new Promise<void>((resolve) => {
      process.send?.(message, undefined, undefined, () => resolve());
    });
    this.#sent = this.#sent.then(() => sent);
  }

  /** Closes the channel, which would keep this process running. */
  async leave(): Promise<void> {
    process.off("message", this.#onMessage);
    process.off("disconnect", this.#onDisconnect);
    await withTimeout(sendTimeoutMs, this.#sent);
    if (process.connected) process.disconnect();
  }

  readonly #onMessage = (message: unknown) => {
    if (!isEngineMessage<ParentMessage>(message)) return;
    const origin = { requestedBy: "parent process" };
    if (message.saq === "hurry") this.#listener?.hurry({ origin });
    else this.#stop({ origin, grace: message.grace });
  };

  readonly #onDisconnect = () => {
    const origin = { reason: "the parent process has ended" };
    this.#stop({ origin, grace: this.#options.reloader ? reloadGraceSeconds : undefined });
  };

  #stop(request: StopRequest): void {
    if (this.#listener) this.#listener.stop(request);
    else process.exit();
  }
}

function startWatchdog({ parent, stopTimeout }: ParentOptions): void {
  const thread = new Thread(watchdogProgram, {
    eval: true,
    name: "parent-watchdog",
    workerData: { parent, stopTimeoutMs: stopTimeout * 1_000 },
    // Without these, the thread would load what the process preloads: a TypeScript loader, instrumentation.
    execArgv: [],
    env: {},
  });
  // A process without this thread still works. It only does not end if its parent is killed while a task blocks it.
  thread.on("error", () => {});
  thread.unref();
}
