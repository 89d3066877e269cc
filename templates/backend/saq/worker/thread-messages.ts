/** What the main thread and a worker thread say to each other. Everything travels as a structured clone. */
import type { JobFields } from "../job.js";
import type { ErrorDetails } from "./error-details.js";

/** One job for a thread. */
export interface ThreadJob {
  /** The module that defines the task, and the name under which it exports it. */
  module: string;
  exportName: string;
  queueName: string;
  workerId: string;
  fields: JobFields;
  payload: unknown;
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

/** Errors travel as their details: a clone of an Error keeps neither its name nor its code. */
export type ThreadEnd =
  /** JSON text, so that a result means what that of any other task means: a clone would drop `toJSON`. */
  | { kind: "returned"; json: string | undefined }
  /** The result has no JSON form. */
  | { kind: "unwritable"; why: string }
  /** `unloaded`: the module could not be loaded; a thread remembers that for ever, so it is not used again. */
  | { kind: "threw"; error: ErrorDetails; unloaded: boolean };
