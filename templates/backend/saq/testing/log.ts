import { type LogArguments, type Logger, readLogCall } from "../logger.js";

/** One line that a task logged. */
export interface LogLine {
  level: "debug" | "info" | "warn" | "error";
  message: string;
  /** The fields of the call, and those of the loggers above it (`child`). */
  fields: Record<string, unknown>;
}

/** A logger that collects its lines and those of its children. */
export class CollectingLogger implements Logger {
  readonly #bound: Record<string, unknown>;

  constructor(
    readonly lines: LogLine[] = [],
    bound: Record<string, unknown> = {},
  ) {
    this.#bound = bound;
  }

  readonly debug = (...call: LogArguments): void => this.#add("debug", call);
  readonly info = (...call: LogArguments): void => this.#add("info", call);
  readonly warn = (...call: LogArguments): void => this.#add("warn", call);
  readonly error = (...call: LogArguments): void => this.#add("error", call);

  child(fields: Record<string, unknown>): CollectingLogger {
    return new CollectingLogger(this.lines, { ...this.#bound, ...fields });
  }

  #add(level: LogLine["level"], call: LogArguments): void {
    const { fields, message } = readLogCall(call);
    this.lines.push({ level, message, fields: { ...this.#bound, ...fields } });
  }
}
