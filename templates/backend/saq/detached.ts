/**
 * Runs a function outside of every `AsyncLocalStorage` of its caller. The events of a socket run in the context in which
 * it was opened: without this, what a connection causes for hours would belong to the request that needed it first.
 */
import { AsyncLocalStorage } from "node:async_hooks";

/** Calls `call` in the context in which this module was loaded, which is that of no request. */
export const detached: <Result>(call: () => Result) => Result = AsyncLocalStorage.snapshot();
