/**
 * Runs a function outside of every `AsyncLocalStorage` of its caller. The events of a socket run in the context in
 * which it was opened. Without this, all later events of a connection would belong to the request that opened it.
 */
import { AsyncLocalStorage } from "node:async_hooks";

/** Calls `call` in the context in which this module was loaded, which is that of no request. */
export const detached: <Result>(call: () => Result) => Result = AsyncLocalStorage.snapshot();
