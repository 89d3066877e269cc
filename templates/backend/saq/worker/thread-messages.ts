/** What the main thread and a worker thread say to each other. Everything travels as a structured clone. */
import type { JobFields } from "../job.js";

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
  | { kind: "updated"; id: number; error: ThrownError | null };

export type LogLevel = "debug" | "info" | "warn" | "error";

export type FromThread =
  | { kind: "log"; level: LogLevel; fields: object; message: string }
  | { kind: "update"; run: number; id: number; change: JobChange }
  | { kind: "ended"; end: ThreadEnd };

export type ThreadEnd =
  /** JSON text, so that a result means what that of any other task means: a clone would drop `toJSON`. */
  | { kind: "returned"; json: string | undefined }
  /** The result has no JSON form. */
  | { kind: "unwritable"; why: string }
  /** `unloaded`: the module could not be loaded; a thread remembers that for ever, so it is not used again. */
  | { kind: "threw"; error: ThrownError; unloaded: boolean };

/** A clone of an Error keeps neither its name nor its code. */
export interface ThrownError {
  name: string;
  message: string;
  stack: string | undefined;
}

/** Not by `instanceof`: an error may come from another realm. Takes whatever a task throws. */
export function describeThrown(thrown: unknown): ThrownError {
  try {
    const { name, message, stack } = (thrown ?? {}) as Partial<Record<keyof ThrownError, unknown>>;
    if (typeof name === "string" && typeof message === "string") {
      return { name, message, stack: typeof stack === "string" ? stack : undefined };
    }
    return notAnError(inspected(thrown));
  } catch {
    return notAnError("what it is cannot be read");
  }
}

function notAnError(what: string): ThrownError {
  const text = `A task threw something that is not an Error: ${what}`;
  return { name: "Error", message: text, stack: text };
}

export const rebuilt = ({ name, message, stack }: ThrownError): Error =>
  Object.assign(new Error(message), { name, stack: stack ?? `${name}: ${message}` });

function inspected(value: unknown): string {
  try {
    return typeof value === "string" ? value : (JSON.stringify(value) ?? String(value));
  } catch {
    return Object.prototype.toString.call(value);
  }
}
