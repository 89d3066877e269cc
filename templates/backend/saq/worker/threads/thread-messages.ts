/** The messages between the main thread and a worker thread. They are sent as structured clones. */
import type { JobFields } from "../../core/job.js";
import type { Carrier } from "../../telemetry/propagation.js";
import type { ErrorDetails } from "../settlement/error-details.js";

/** One job for a thread. */
export interface ThreadJob {
  /** The module that defines the task, and the name under which it exports it. */
  module: string;
  exportName: string;
  queueName: string;
  workerId: string;
  fields: JobFields;
  payload: unknown;
  /** The context of OpenTelemetry in which the task runs; null without one. */
  otelContext: Carrier | null;
}

export interface JobChange {
  progress?: number;
  meta?: Record<string, unknown>;
}

export type ToThread =
  | { kind: "run"; run: number; job: ThreadJob }
  | { kind: "interrupt"; run: number; name: string; message: string }
  | { kind: "updated"; id: number; error: ErrorDetails | null };

export type LogLevel = "debug" | "info" | "warn" | "error";

export type FromThread =
  | { kind: "log"; level: LogLevel; fields: object; message: string }
  | { kind: "update"; run: number; id: number; change: JobChange }
  | { kind: "ended"; end: ThreadEnd };

/** How a run ended. Errors are sent as their details: a clone of an Error keeps neither its name nor its code. */
export type ThreadEnd =
  /** JSON text, so that the result is stored as that of any other task: a clone would drop `toJSON`. */
  | { kind: "returned"; json: string | undefined }
  /** The result has no JSON form. */
  | { kind: "unserializable"; reason: string }
  /** The task threw what `ctx.snooze` returned. `wasReturned`: it returned it by mistake. */
  | { kind: "snoozed"; seconds: number; wasReturned: boolean }
  /**
   * `loadFailed`: the module could not be loaded. A thread keeps that failure for ever, so it is not used again.
   * `noRetry`: the error is a NoRetry.
   */
  | { kind: "threw"; error: ErrorDetails; loadFailed: boolean; noRetry: boolean };
