/** A logger whose lines a test can wait for. */
import { type LogArguments, type Logger, readLogCall } from "../../../templates/backend/saq/logger.js";

export interface LogLine {
  level: string;
  message: string;
  fields: Record<string, unknown>;
}

/** Keeps its lines and those of its children, and lets a test wait for one. */
export class LogBook implements Logger {
  readonly lines: LogLine[];
  readonly #fields: Record<string, unknown>;
  readonly #listeners: Set<(line: LogLine) => void>;

  constructor(parent?: LogBook, fields: Record<string, unknown> = {}) {
    this.lines = parent ? parent.lines : [];
    this.#listeners = parent ? parent.#listeners : new Set();
    this.#fields = fields;
  }

  debug = (...call: LogArguments) => this.#add("debug", call);
  info = (...call: LogArguments) => this.#add("info", call);
  warn = (...call: LogArguments) => this.#add("warn", call);
  error = (...call: LogArguments) => this.#add("error", call);
  child = (fields: Record<string, unknown>) => new LogBook(this, { ...this.#fields, ...fields });
  isLevelEnabled = () => true;

  #add(level: string, call: LogArguments): void {
    const { fields, message } = readLogCall(call);
    const line = { level, message, fields: { ...this.#fields, ...fields } };
    this.lines.push(line);
    for (const listener of this.#listeners) listener(line);
  }

  /** Returns the first line for which `fits` is true, now or later. Fails after 110 s with the lines so far. */
  saw(fits: (line: LogLine) => boolean): Promise<LogLine> {
    const there = this.lines.find(fits);
    if (there) return Promise.resolve(there);
    return new Promise((resolve, reject) => {
      const done = () => {
        clearTimeout(timer);
        this.#listeners.delete(listener);
      };
      const listener = (line: LogLine) => {
        if (!fits(line)) return;
        done();
        resolve(line);
      };
      const timer = setTimeout(() => {
        done();
        reject(
          new Error(`The awaited log line did not come. Lines:\n${this.lines.map(lineText).join("\n")}`),
        );
      }, 110_000);
      this.#listeners.add(listener);
    });
  }
}

const lineText = ({ level, message, fields }: LogLine): string =>
  `${level} ${message} ${Object.values(fields)}`;
