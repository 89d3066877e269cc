/** Changes of all jobs that match a filter, page by page: `queue.changeMany`. */
import { createHash } from "node:crypto";
import { hostname } from "node:os";
import type { Broker, ChangedPage } from "../broker.js";
import {
  type BulkAction,
  type BulkAnswer,
  belongsTo,
  bulkActions,
  decideBulk,
  type SkipReason,
} from "../core/bulk-change.js";
import { isSelected, type JobSelection } from "../core/job-selection.js";
import { jsonText } from "../core/json-text.js";
import type { StoredJob } from "../core/stored-job.js";
import { read } from "../core/stored-job.js";
import type { Decision } from "../core/transitions.js";
import { InvalidJobError } from "../errors.js";
import { describe, type Logger } from "../logger.js";
import { checkedSelection } from "./job-conditions.js";
import { checkJson } from "./job-editor.js";
import type { QueueCounters } from "./types.js";

/**
 * Which jobs `changeMany` changes. All conditions must be true. Without `statuses`: `retry` takes failed jobs, `abort`
 * waiting and running ones, `delete` finished ones, and `runNow` waiting ones that are not due.
 */
export type ChangeFilter = Partial<JobSelection>;

/** Options of `changeMany`. */
export interface ChangeOptions {
  /** Maximum number of jobs that match. @defaultValue no limit */
  limit?: number;
  /** True: nothing is changed, and the result says what would be. @defaultValue false */
  dryRun?: boolean;
  /** The `cursor` of a result: goes on where that call has stopped. Needs the same filter. @defaultValue none */
  cursor?: string;
  /** Called after each page with the result so far. */
  onProgress?: (progress: ChangeResult) => void;
  /** Stops after the page that is being changed. The result then has a `cursor`. */
  signal?: AbortSignal;
  /** The error of each job that is retried or aborted. @defaultValue "retried" or "aborted" */
  error?: string;
  /** Whether a retry resets the attempts. @defaultValue true */
  resetAttempts?: boolean;
  /** Who makes the change, for the log. @defaultValue the machine and the process */
  by?: string;
}

/** What `changeMany` did. */
export interface ChangeResult {
  /** Number of jobs that match the filter, as far as they were looked at. */
  matched: number;
  /** Number of jobs that were changed; with `dryRun`, that would be. A running job that was asked to end counts. */
  changed: number;
  /** Number of jobs that match and were not changed, by reason. Reasons without a job are left out. */
  skipped: Partial<Record<SkipReason, number>>;
  /** Where to go on; null if all jobs were looked at. */
  cursor: string | null;
}

const defaultSelections: Record<BulkAction, Pick<JobSelection, "statuses" | "due">> = {
  retry: { statuses: ["failed"] },
  abort: { statuses: ["queued", "active"] },
  delete: { statuses: ["complete", "failed", "aborted"] },
  runNow: { statuses: ["queued"], due: false },
};

const defaultErrors: Record<BulkAction, string> = {
  retry: "retried",
  abort: "aborted",
  delete: "",
  runNow: "",
};

/** Where a change goes on. */
interface Cursor {
  /** When the first call of the change began, by the database's clock, epoch ms. */
  start: number;
  after: string;
  /** A hash of the queue, the action and the filter: another change cannot go on here. */
  change: string;
}

interface BulkEditorOptions {
  queueName: string;
  broker: Broker;
  failedTtl: number;
  maxBytes: number;
  counters: QueueCounters;
  logger: Logger;
}

export class BulkEditor {
  readonly #options: BulkEditorOptions;

  constructor(options: BulkEditorOptions) {
    this.#options = options;
  }

  async change(filter: ChangeFilter, action: BulkAction, options: ChangeOptions = {}): Promise<ChangeResult> {
    const { broker, failedTtl, maxBytes } = this.#options;
    const at = `changeMany(${jsonText(action)})`;
    if (!bulkActions.includes(action))
      throw new InvalidJobError(`changeMany takes ${bulkActions.join(", ")}, got ${jsonText(action)}`);
    const selection = checkedSelection(at, filter, defaultSelections[action]);
    const { limit, dryRun = false, error = defaultErrors[action], resetAttempts = true } = options;
    if (limit !== undefined && !(Number.isSafeInteger(limit) && limit >= 1))
      throw new InvalidJobError(`${at}: limit must be a whole number >= 1, got ${jsonText(limit)}`);
    checkJson(`${at}: error`, error, maxBytes);
    const change = hashOf(this.#options.queueName, action, selection);
    const given = options.cursor === undefined ? null : parseCursor(at, options.cursor, change);
    await broker.connect();
    // A job that is enqueued in the same ms as this call begins belongs to it.
    const cursor = given ?? { start: Math.ceil(broker.now()), after: "", change };
    const { start } = cursor;
    return this.#changePages(
      cursor,
      { selection, action, options, maxMatches: limit ?? Number.POSITIVE_INFINITY, dryRun },
      (row, clock) => {
        const job = read(row);
        if (!isSelected(row, selection, clock, job) || (job && !belongsTo(action, job, start))) return null;
        const decision = decideBulk(action, row, clock, { error, resetAttempts, failedTtl });
        return dryRun ? { change: null, answer: decision.answer } : decision;
      },
    );
  }

  async #changePages(
    first: Cursor,
    {
      selection,
      action,
      options: { onProgress, signal, by },
      maxMatches,
      dryRun,
    }: {
      selection: JobSelection;
      action: BulkAction;
      options: ChangeOptions;
      maxMatches: number;
      dryRun: boolean;
    },
    decide: (row: StoredJob, clock: number) => Decision<BulkAnswer> | null,
  ): Promise<ChangeResult> {
    const { broker, queueName, logger } = this.#options;
    const began = performance.now();
    const result: ChangeResult = {
      matched: 0,
      changed: 0,
      skipped: {},
      cursor: formatCursor(first),
    };
    let failure: unknown = null;
    try {
      for (let position: string | null = first.after; position !== null; ) {
        if (signal?.aborted || result.matched >= maxMatches) break;
        const limit = Math.min(maxMatches - result.matched, Number.MAX_SAFE_INTEGER);
        const page: ChangedPage<BulkAnswer> = await broker.changePage(
          { selection, after: position, limit },
          decide,
        );
        position = page.next;
        result.cursor = position === null ? null : formatCursor({ ...first, after: position });
        this.#count(result, page, { action, dryRun });
        onProgress?.({ ...result, skipped: { ...result.skipped } });
      }
    } catch (error) {
      failure = error;
      throw error;
    } finally {
      if (!dryRun) {
        const fields = {
          queue: queueName,
          action,
          by: by ?? `${hostname()}:${process.pid}`,
          filter: selection,
          ...result,
          seconds: Math.round(performance.now() - began) / 1_000,
        };
        const text = `Changed jobs by filter: ${action}, ${result.changed} of ${result.matched} jobs`;
        if (failure === null) logger.info(fields, text);
        else logger.error({ ...fields, ...describe(failure) }, `${text}; it ended with an error`);
      }
    }
    return result;
  }

  #count(
    result: ChangeResult,
    { answers, held }: ChangedPage<BulkAnswer>,
    { action, dryRun }: { action: BulkAction; dryRun: boolean },
  ): void {
    const { counters } = this.#options;
    const skip = (reason: SkipReason, count: number) => {
      result.skipped[reason] = (result.skipped[reason] ?? 0) + count;
    };
    result.matched += answers.length + held;
    if (held > 0) skip("locked", held);
    for (const answer of answers) {
      if (answer !== "changed" && answer !== "requested") {
        skip(answer, 1);
        continue;
      }
      result.changed++;
      if (dryRun) continue;
      if (action === "retry") counters.retried++;
      // A running job is counted by its worker when it has ended.
      else if (action === "abort" && answer === "changed") counters.aborted++;
    }
  }
}

const formatCursor = ({ start, after, change }: Cursor): string =>
  Buffer.from(JSON.stringify([start, after, change])).toString("base64url");

function parseCursor(at: string, cursor: string, change: string): Cursor {
  let found: Cursor | null = null;
  try {
    const [start, after, other] = JSON.parse(Buffer.from(cursor, "base64url").toString()) as unknown[];
    if (Number.isSafeInteger(start) && typeof after === "string" && typeof other === "string")
      found = { start: Number(start), after, change: other };
  } catch {
    // Refused below.
  }
  if (!found)
    throw new InvalidJobError(
      `${at}: cursor must be the cursor of a previous result, got ${jsonText(cursor)}`,
    );
  if (found.change === change) return found;
  throw new InvalidJobError(
    `${at}: the cursor is one of a change with another queue, action or filter. Give the same filter, or leave the ` +
      "cursor out to begin again",
  );
}

function hashOf(queueName: string, action: BulkAction, selection: JobSelection): string {
  const { enqueuedAfter, enqueuedBefore, statuses } = selection;
  const members = {
    ...selection,
    statuses: [...statuses].sort(),
    ...(enqueuedAfter !== undefined && { enqueuedAfter: Number(enqueuedAfter) }),
    ...(enqueuedBefore !== undefined && { enqueuedBefore: Number(enqueuedBefore) }),
  };
  const text = JSON.stringify([queueName, action, Object.entries(members).sort()]);
  return createHash("sha256").update(text).digest("base64url").slice(0, 12);
}
