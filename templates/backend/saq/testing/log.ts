import type { Logger } from "../logger.js";

export interface LogLine {
  level: "debug" | "info" | "warn" | "error";
  message: string;
  fields: Record<string, unknown>;
}

/** Keeps its lines, and those of its children. */
export class CollectingLogger implements Logger {
  readonly #bound: Record<string, unknown>;

  constructor(
    readonly lines: LogLine[] = [],
    bound: Record<string, unknown> = {},
  ) {
    this.#bound = bound;
  }

  debug(fields: object, message: string): void {
    this.#add("debug", fields, message);
  }

  info(fields: object, message: string): void {
    this.#add("info", fields, message);
  }

  warn(fields: object, message: string): void {
    this.#add("warn", fields, message);
  }

  error(fields: object, message: string): void {
    this.#add("error", fields, message);
  }

  child(fields: Record<string, unknown>): CollectingLogger {
    return new CollectingLogger(this.lines, { ...this.#bound, ...fields });
  }

  #add(level: LogLine["level"], fields: object, message: string): void {
    this.lines.push({ level, message, fields: { ...this.#bound, ...fields } });
  }
}
