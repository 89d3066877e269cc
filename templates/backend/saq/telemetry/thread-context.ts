/**
 * The context of a task that runs in a thread. A thread has its own instance of OpenTelemetry, so the context is sent
 * to it as the texts of a propagator.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { loadOtelApi } from "./otel-api.js";
import { type Carrier, contextOf } from "./propagation.js";

const carriers = new AsyncLocalStorage<Carrier>();

/** Calls a task inside of the context of `carrier`. Without an SDK of its own, the thread makes no spans in it. */
export function runInContext<Result>(carrier: Carrier, call: () => Result): Result {
  const run = () => carriers.run(carrier, call);
  const api = loadOtelApi();
  return api ? api.context.with(contextOf(api, carrier), run) : run();
}

/**
 * Returns the carrier of the task that runs here, in a thread; undefined everywhere else. Most threads have no SDK. The
 * jobs that a task enqueues there would otherwise not belong to its trace.
 */
export const threadCarrier = (): Carrier | undefined => carriers.getStore();
