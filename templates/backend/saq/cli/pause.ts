/** `pause` and `resume`: pause queues, one of their tasks or one group, and show what is paused. */
import { describeTarget, type Pause, type PauseTarget } from "../core/pause.js";
import { SaqError } from "../errors.js";
import type { Queue } from "../queue/queue.js";
import { findTask } from "../tasks/task.js";
import type { Flags } from "./arguments.js";
import { caller } from "./caller.js";
import { parseDuration } from "./duration.js";
import { CliError, type ExitCode, exitCodes, usageError } from "./errors.js";
import { chooseQueues, loadApp } from "./load-app.js";
import { table } from "./table.js";

export async function pause(flags: Flags): Promise<ExitCode> {
  const { list, values } = flags;
  const { task, group, reason } = values;
  const seconds = values.for === undefined ? undefined : parseSeconds(values.for);
  const by = values.by ?? caller();
  return withQueues(flags, async (queues) => {
    if (list) {
      const found = await Promise.all(
        queues.map(async (queue) => ({ name: queue.name, pauses: await queue.pauses() })),
      );
      console.log(pausesTable(found) ?? "Nothing is paused.");
      return;
    }
    for (const queue of queuesWith(queues, task)) {
      const stored = await queue.pause({ task, group, seconds, by, reason });
      const end = stored.until === null ? "" : ` until ${timeText(stored.until)}`;
      console.log(`Paused: ${describeTarget(stored, queue.name)}${end}`);
    }
  });
}

export function resume(flags: Flags): Promise<ExitCode> {
  const { task, group } = flags.values;
  return withQueues(flags, async (queues) => {
    // A task that was removed from the configuration may still be paused.
    const paused = await Promise.all(queues.map(async (queue) => hasPause(await queue.pauses(), task)));
    const chosen = task === undefined ? queues : queues.filter((_, index) => paused[index]);
    const target: PauseTarget = { task: task ?? null, group: group ?? null };
    for (const queue of chosen.length > 0 ? chosen : queuesWith(queues, task)) {
      const hasEnded = await queue.resume({ task, group });
      const what = describeTarget(target, queue.name);
      console.log(hasEnded ? `Resumed: ${what}` : `Not paused: ${what}`);
    }
  });
}

const hasPause = (pauses: readonly Pause[], task: string | undefined): boolean =>
  pauses.some((pause) => pause.task === task);

/** Runs `work` with the queues of the command line. An unknown task is an invalid command line. */
async function withQueues(
  { config, queues: names, values }: Flags,
  work: (queues: Queue[]) => Promise<void>,
): Promise<ExitCode> {
  const { queue: name, task, group } = values;
  if (task !== undefined && group !== undefined)
    throw usageError(`--task and --group cannot be combined, got --task ${task} and --group ${group}.`);
  const saq = await loadApp(config);
  try {
    await work(chooseQueues(saq, name === undefined ? names : [...names, name]));
    return exitCodes.done;
  } catch (error) {
    const isUsage =
      error instanceof SaqError && (error.code === "unknown_task" || error.code === "invalid_job");
    throw isUsage ? new CliError(error.message, exitCodes.usage) : error;
  } finally {
    await saq.close();
  }
}

/** Returns the queues that have the task. If none has it, returns all: the first one refuses it and lists its tasks. */
function queuesWith(queues: readonly Queue[], task: string | undefined): readonly Queue[] {
  if (task === undefined) return queues;
  const found = queues.filter(({ config }) => findTask(config.tasks, task) !== undefined);
  return found.length > 0 ? found : queues;
}

/** Returns what is paused as a table; null if nothing is. */
export function pausesTable(queues: readonly { name: string; pauses: readonly Pause[] }[]): string | null {
  const rows = queues.flatMap(({ name, pauses }) =>
    pauses.map(({ since, until, by, reason, ...target }) => [
      describeTarget(target, name),
      timeText(since),
      until === null ? "resume" : timeText(until),
      by ?? "",
      reason ?? "",
    ]),
  );
  return rows.length === 0 ? null : table([["paused", "since", "until", "by", "reason"], ...rows]);
}

/** Returns a time (epoch ms) as text, in UTC, to the second. */
const timeText = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");

/** Returns seconds. A number without a unit is seconds, too. */
function parseSeconds(text: string): number {
  const seconds = parseDuration(text) ?? parseDuration(`${text}s`);
  if (seconds !== null && seconds > 0) return seconds;
  throw usageError(`--for must be a time such as 90, 90s, 10m, 2h or 7d, got "${text}".`);
}
