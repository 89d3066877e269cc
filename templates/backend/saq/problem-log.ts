/**
 * Logs a problem that lasts: one line when it starts, and one line with its duration when it ends. Without this, an
 * outage of a minute writes one warning per task and retry.
 */
import { describe, type Logger } from "./logger.js";

export interface Failure {
  /** Name of the part that failed. A source has one problem at a time. */
  source: string;
  error: unknown;
  /** Text of the log line: what failed. */
  message: string;
  fields?: object;
  /**
   * Failures of the same kind are one problem, whatever their source and the text of the error.
   * @defaultValue the error's text
   */
  kind?: string;
}

export interface ProblemLogOptions {
  /** True for errors that are logged elsewhere: here they are logged at debug level. */
  isLoggedElsewhere?: (error: unknown) => boolean;
}

interface Problem {
  message: string;
  since: number;
  /** Sources that have failed for this reason and have not succeeded since. */
  readonly sources: Set<string>;
}

/**
 * Logs the problems of several sources.
 *
 * @example
 * const problems = new ProblemLog(logger);
 * try {
 *   await sweep();
 *   problems.succeeded("sweep");
 * } catch (error) {
 *   problems.failed({ source: "sweep", error, message: "could not sweep" });
 * }
 * // warn could not sweep {"source":"sweep","reason":"connect ECONNREFUSED 127.0.0.1:5432"}
 * // info over after 12.4 s: could not sweep {"seconds":12.4}
 */
export class ProblemLog {
  readonly #problems = new Map<string, Problem>();
  /** The kind of each source's current problem. */
  readonly #kindOf = new Map<string, string>();

  constructor(
    private readonly logger: Logger,
    private readonly options: ProblemLogOptions = {},
  ) {}

  /** Reports a failure of a source: logs a warning if the problem is new, otherwise a line at debug level. */
  failed({ source, error, message, fields = {}, kind = textOf(error) }: Failure): void {
    const line = { source, ...fields, ...describe(error) };
    if (this.options.isLoggedElsewhere?.(error)) {
      this.logger.debug(line, message);
      return;
    }
    if (this.#kindOf.get(source) !== kind) this.succeeded(source);
    this.#kindOf.set(source, kind);
    const known = this.#problems.get(kind);
    if (known) {
      known.sources.add(source);
      this.logger.debug(line, message);
      return;
    }
    this.#problems.set(kind, { message, since: performance.now(), sources: new Set([source]) });
    this.logger.warn(line, message);
  }

  /** Reports that a source works. Its problem is over when no other source has it. */
  succeeded(source: string): void {
    const kind = this.#kindOf.get(source);
    if (kind === undefined) return;
    this.#kindOf.delete(source);
    const problem = this.#problems.get(kind);
    if (!problem?.sources.delete(source) || problem.sources.size > 0) return;
    this.#problems.delete(kind);
    const seconds = Math.round((performance.now() - problem.since) / 100) / 10;
    this.logger.info({ seconds }, `over after ${seconds} s: ${problem.message}`);
  }

  /** True if the source has a problem now. */
  has(source: string): boolean {
    return this.#kindOf.has(source);
  }
}

const textOf = (error: unknown): string => String((error as { message?: unknown } | null)?.message ?? error);
