/** Turns the stop signals of a process into at most two requests: stop, and end the grace period. */

/** A request to stop the workers of a process. */
export interface StopRequest {
  /** How long running jobs may continue, s. Undefined: the queue's `shutdownGracePeriod`. */
  grace?: number | undefined;
  /** Fields of the log line about the request: who asks, and how. */
  origin: object;
}

/** Receives the requests of a `StopSource`. Each method may be called more than once. */
export interface StopListener {
  stop(request: StopRequest): void;
  /** Ends the grace period. */
  hurry(request: Pick<StopRequest, "origin">): void;
}

/** Begins to pass requests on to a listener. Returns the function that ends this. */
export type StopSource = (listener: StopListener) => () => void;

/**
 * Signals within this time count as one: Ctrl-C reaches a process several times, from the terminal's process group,
 * from npm and from concurrently.
 */
const repeatedSignalMs = 2_000;
/** The grace period of a process that is restarted on each save, s. */
export const reloadGraceSeconds = 1;
/** SIGBREAK is Ctrl-Break on Windows; it is not sent on other systems. */
const stopSignals = ["SIGINT", "SIGTERM", "SIGBREAK"] as const;

/**
 * Returns the source of this process's signals. The first SIGINT, SIGTERM or SIGBREAK is the request to stop. A signal
 * more than 2 s later ends the grace period.
 *
 * `reloader`: the process is restarted on each save, so SIGTERM gives running jobs 1 s.
 */
export const signalSource =
  ({ reloader = false }: { reloader?: boolean } = {}): StopSource =>
  (listener) => {
    /** performance.now() */
    let firstSignalAt: number | null = null;
    const onSignal = (signal: NodeJS.Signals) => {
      const origin = { signal };
      if (firstSignalAt === null) {
        firstSignalAt = performance.now();
        listener.stop({ origin, grace: reloader && signal === "SIGTERM" ? reloadGraceSeconds : undefined });
      } else if (performance.now() - firstSignalAt > repeatedSignalMs) {
        listener.hurry({ origin });
      }
    };
    for (const signal of stopSignals) process.on(signal, onSignal);
    return () => {
      for (const signal of stopSignals) process.off(signal, onSignal);
    };
  };
