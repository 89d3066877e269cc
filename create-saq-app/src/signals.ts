import { constants } from "node:os";
import { Interrupted } from "./errors.js";

const WATCHED = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

export interface SignalWatch {
  /** Aborted by the first signal; later ones change nothing, for one Ctrl-C often arrives several times. */
  readonly signal: AbortSignal;
  /** @throws Interrupted once a signal has come; lets a waiting one in first. */
  check(message: string): Promise<void>;
  /** Gives the signals back to Node's own handling. */
  release(): void;
}

/** From here on a signal no longer ends the process by itself: what is under way is brought to a clean end first. */
export function watchSignals(): SignalWatch {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals) => controller.abort(name);
  for (const name of WATCHED) process.on(name, onSignal);
  return {
    signal: controller.signal,
    async check(message) {
      await new Promise(setImmediate);
      if (!controller.signal.aborted) return;
      const name = controller.signal.reason as (typeof WATCHED)[number];
      throw new Interrupted(message, 128 + constants.signals[name]);
    },
    release() {
      for (const name of WATCHED) process.off(name, onSignal);
    },
  };
}
