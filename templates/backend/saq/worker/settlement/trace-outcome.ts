/** What the span of an attempt shows about its end. */
import type { Settlement } from "../../broker.js";
import type { AttemptOutcome } from "../../telemetry/telemetry.js";
import type { AttemptResult } from "./settlement.js";

/**
 * Returns the outcome of an attempt. An attempt that was aborted or snoozed, or that a shutdown ended, has not failed.
 * `settlement`: what is recorded; null if the worker does not own the job any more.
 */
export function outcomeOf(end: AttemptResult, settlement: Settlement | null): AttemptOutcome {
  const status = settlement?.status ?? null;
  switch (end.kind) {
    case "threw":
      return { status, error: end.error ?? new Error(String(end.error)) };
    case "snoozed":
      return { status, error: undefined };
    case "interrupted": {
      const isRequested = end.interruption === "abort" || end.interruption === "shutdown";
      return { status, error: isRequested ? undefined : end.reason };
    }
    case "returned":
      return { status, error: status === "failed" ? resultRefused() : undefined };
  }
}

function resultRefused(): Error {
  const error = new Error("the result of the task could not be stored; the job's error says why");
  error.name = "InvalidResultError";
  return error;
}
