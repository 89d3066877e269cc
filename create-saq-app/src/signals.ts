import { constants } from "node:os";
import { Interrupted } from "./errors.js";

const STOP_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface SignalWatch {
  /** Aborted by the first signal. Later signals are ignored, because one Ctrl-C often arrives several times. */
  readonly signal: AbortSignal;
  /**
   * Lets Node deliver a pending signal, then checks whether a signal has arrived.
   *
   * @throws Interrupted with `message` if a signal has arrived
   */
  check(message: string): Promise<void>;
  /** Restores Node's default handling of the signals. */
  release(): void;
}

/**
 * Starts to watch for signals. From now on a signal does not end the process, so that the current step can clean up.
 */
export function watchSignals(): SignalWatch {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals) => controller.abort(name);
  for (const name of STOP_SIGNALS) process.on(name, onSignal);
  return {
    signal: controller.signal,
    async check(message) {
      await new Promise(setImmediate);
      if (!controller.signal.aborted) return;
      const name = controller.signal.reason as (typeof STOP_SIGNALS)[number];
      throw new Interrupted(message, 128 + constants.signals[name]);
    },
    release() {
      for (const name of STOP_SIGNALS) process.off(name, onSignal);
    },
  };
}
