/** What the options of a command say about jobs: which ones, and how many. */
import { type JobSelection, type JobState, jobStates, selectionOfStates } from "../core/job-selection.js";
import type { Flags } from "./arguments.js";
import { type OptionName, selectionOptions } from "./commands.js";
import { usageError } from "./errors.js";

type Filter = Partial<JobSelection>;

const unitMs: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/**
 * Returns the conditions that the options set. Those that are not set are left out.
 *
 * @throws CliError with exit code 2 for an invalid status or time
 */
export function filterOf({ statuses, values }: Flags): Filter {
  const after = values["enqueued-after"];
  const before = values["enqueued-before"];
  return {
    ...(statuses.length > 0 && selectionOfStates(statuses.map(parseState))),
    ...(values.task !== undefined && { task: values.task }),
    ...(values.error !== undefined && { error: values.error }),
    ...(values["key-prefix"] !== undefined && { keyPrefix: values["key-prefix"] }),
    ...(after !== undefined && { enqueuedAfter: parseTime("enqueued-after", after) }),
    ...(before !== undefined && { enqueuedBefore: parseTime("enqueued-before", before) }),
  };
}

/** The times that a filter has, as values of the options: a time such as 2h means another one later. */
export function timesOf({ enqueuedAfter, enqueuedBefore }: Filter): Partial<Record<OptionName, string>> {
  const text = (time: Date | number) => new Date(time).toISOString();
  return {
    ...(enqueuedAfter !== undefined && { "enqueued-after": text(enqueuedAfter) }),
    ...(enqueuedBefore !== undefined && { "enqueued-before": text(enqueuedBefore) }),
  };
}

/** True if an option selects jobs. */
export const hasFilter = ({ statuses, values }: Flags): boolean =>
  statuses.length > 0 || selectionOptions.some((name) => values[name] !== undefined);

/** @throws CliError with exit code 2 if --limit is not a whole number from 1 */
export function limitOf({ values: { limit } }: Flags): number | undefined {
  if (limit === undefined) return undefined;
  const count = /^\d+$/.test(limit) ? Number(limit) : Number.NaN;
  if (Number.isSafeInteger(count) && count >= 1) return count;
  throw usageError(`--limit must be a whole number from 1, got "${limit}".`);
}

function parseState(name: string): JobState {
  const state = jobStates.find((known) => known === name);
  if (state) return state;
  throw usageError(`--status must be one of ${jobStates.join(", ")}, got "${name}".`);
}

/** Returns epoch ms. */
function parseTime(option: OptionName, text: string): number {
  const [, count, unit = ""] = /^(\d+)([smhd])$/.exec(text) ?? [];
  const ms =
    count === undefined ? Date.parse(text) : Date.now() - Number(count) * (unitMs[unit] ?? Number.NaN);
  if (!Number.isNaN(new Date(ms).getTime())) return ms;
  throw usageError(
    `--${option} must be a time such as 2026-11-19T08:30:00Z, or 90s, 30m, 2h or 7d (that long ago), got "${text}".`,
  );
}
