/** The commands that change jobs: `retry`, `abort`, `delete` and `run-now`, of one job or of all that are selected. */
import { hostname, userInfo } from "node:os";
import type { BulkAction, SkipReason } from "../core/bulk-change.js";
import { SaqError } from "../errors.js";
import type { Saq } from "../express/create-saq.js";
import type { ChangeResult } from "../queue/bulk-editor.js";
import type { Job } from "../queue/job-handle.js";
import type { Queue } from "../queue/queue.js";
import { signalSource } from "../worker/index.js";
import type { Flags } from "./arguments.js";
import type { OptionName } from "./commands.js";
import { type ExitCode, exitCodes, usageError } from "./errors.js";
import { filterOf, hasFilter, limitOf, timesOf } from "./job-filter.js";
import { jobCount, printJson, summaryOf } from "./job-output.js";
import { findJob, tableOf } from "./jobs.js";
import { chooseQueues, loadApp } from "./load-app.js";
import { ProgressLine } from "./progress-line.js";

/** What a command does with jobs, as its messages say it. */
interface Action {
  command: string;
  /** "can be ..." */
  participle: string;
  /** "To ... them" */
  infinitive: (object: string) => string;
  changeOne(queue: Queue, key: string): Promise<string | null>;
  /** The answers that mean that the job was changed, and what the command says then. */
  done: Readonly<Record<string, string>>;
  /** The other answers. */
  refused: Readonly<Record<string, string>>;
}

const unreadable = "its stored document cannot be read";

const actions: Record<BulkAction, Action> = {
  retry: {
    command: "retry",
    participle: "retried",
    infinitive: (object) => `retry ${object}`,
    changeOne: (queue, key) => queue.retry(key),
    done: { queued: "waits again" },
    refused: {
      not_finished: "is not finished; only a complete, failed or aborted job can be retried",
      unreadable: `cannot be retried: ${unreadable}`,
    },
  },
  abort: {
    command: "abort",
    participle: "aborted",
    infinitive: (object) => `abort ${object}`,
    changeOne: (queue, key) => queue.abort(key),
    done: { aborted: "is aborted", aborting: "runs, and was asked to end" },
    refused: { not_active: "is finished; only a job that waits or runs can be aborted" },
  },
  delete: {
    command: "delete",
    participle: "deleted",
    infinitive: (object) => `delete ${object}`,
    changeOne: (queue, key) => queue.delete(key),
    done: { deleted: "is deleted" },
    refused: { running: "runs; only a job that waits or is finished can be deleted. Abort it first" },
  },
  runNow: {
    command: "run-now",
    participle: "made due",
    infinitive: (object) => `make ${object} due now`,
    changeOne: (queue, key) => queue.runNow(key),
    done: { due: "is due now", already_due: "is due already" },
    refused: {
      not_waiting: "does not wait for its time",
      schedule:
        "is a tick of a recurring task. queue.schedules.run, or POST /saq/api/queues/QUEUE/schedules/NAME/run, runs " +
        "such a task now",
      unreadable: `cannot be made due: ${unreadable}`,
    },
  },
};

const reasons: Record<SkipReason, string> = {
  locked: "held by another transaction",
  unreadable: "the document cannot be read",
  not_finished: "not finished",
  finished: "finished",
  aborting: "being aborted already",
  running: "running",
  not_waiting: "not waiting",
  already_due: "due already",
  schedule: "tick of a recurring task",
};

export const changeJobs =
  (name: BulkAction) =>
  async (flags: Flags): Promise<ExitCode> => {
    const action = actions[name];
    checkCall(action, flags);
    const filter = filterOf(flags);
    const limit = limitOf(flags);
    const saq = await loadApp(flags.config);
    try {
      if (flags.argument !== undefined) return await changeOne(saq, action, flags);
      const queue = chooseQueue(saq, flags);
      const { cursor } = flags.values;
      const options = {
        dryRun: !flags.yes,
        by: caller(),
        ...(limit !== undefined && { limit }),
        ...(cursor !== undefined && { cursor }),
      };
      return await changeMany({ queue, name, action, filter, options, flags });
    } finally {
      await saq.close();
    }
  };

function checkCall({ command }: Action, flags: Flags): void {
  const { argument, values } = flags;
  if (argument === undefined && !hasFilter(flags)) {
    throw usageError(
      `"${command}" needs the KEY of a job, or options that select jobs, for instance --status failed. ` +
        `See: npm run saq -- ${command} --help`,
    );
  }
  if (argument === undefined) return;
  const extra = hasFilter(flags)
    ? "options that select jobs"
    : (["limit", "cursor"] as const).find((one) => values[one]);
  if (extra === undefined) return;
  const named = extra.startsWith("options") ? extra : `--${extra}`;
  throw usageError(`"${command}" takes the KEY of a job or ${named}, not both.`);
}

/** @throws CliError with exit code 2 if there are several queues and none is chosen */
function chooseQueue(saq: Saq, { values: { queue: name } }: Flags): Queue {
  const queues = chooseQueues(saq, name === undefined ? [] : [name]);
  const [queue] = queues;
  if (queue && queues.length === 1) return queue;
  throw usageError(`Choose a queue: --queue ${queues.map((each) => each.name).join(", --queue ")}.`);
}

async function changeOne(saq: Saq, action: Action, flags: Flags): Promise<ExitCode> {
  const { job, queue } = await findJob(saq, flags);
  const base = { action: action.command, queue: queue.name, key: job.key };
  if (!flags.yes) {
    if (flags.json) printJson({ ...base, dry_run: true, answer: null, changed: false });
    else console.log(`${shown(job, queue)}\n${invitation(action.infinitive("it"))}`);
    return exitCodes.done;
  }
  const answer = await action.changeOne(queue, job.key);
  const text = answer === null ? "does not exist any more" : (action.done[answer] ?? action.refused[answer]);
  const isDone = answer !== null && answer in action.done;
  if (flags.json)
    printJson({ ...base, dry_run: false, answer, changed: isDone && answer !== "already_due" });
  const message = `Job ${job.key} of queue ${queue.name} ${text ?? String(answer)}.`;
  if (!isDone) console.error(message);
  else if (!flags.json) console.log(message);
  return isDone ? exitCodes.done : exitCodes.failed;
}

const shown = (job: Job, queue: Queue): string => tableOf([summaryOf(job, queue.broker.now())]);

interface Change {
  queue: Queue;
  name: BulkAction;
  action: Action;
  filter: ReturnType<typeof filterOf>;
  options: { dryRun: boolean; by: string; limit?: number; cursor?: string };
  flags: Flags;
}

async function changeMany(change: Change): Promise<ExitCode> {
  const { queue, name, action, filter, options, flags } = change;
  const stopped = new AbortController();
  let last: ChangeResult | null = null;
  const line = new ProgressLine(
    (count) => `${jobCount(count)} ${options.dryRun ? "counted" : action.participle} so far`,
  );
  const endListening = signalSource()({
    stop: () => stopped.abort(),
    hurry: () => {
      line.end();
      console.error(last ? stoppedText(change, last) : "Stopped.");
      process.exit(exitCodes.stopped);
    },
  });
  let result: ChangeResult;
  try {
    result = await queue.changeMany(filter, name, {
      ...options,
      signal: stopped.signal,
      onProgress: (progress) => {
        last = progress;
        line.show(options.dryRun ? progress.matched : progress.changed);
      },
    });
  } catch (error) {
    line.end();
    if (last) console.error(stoppedText(change, last));
    throw isInvalid(error) ? usageError(error.message) : error;
  } finally {
    endListening();
    line.end();
  }
  const isStopped = stopped.signal.aborted && result.cursor !== null;
  const { matched, changed, skipped, cursor } = result;
  if (flags.json) {
    const { command } = action;
    const dry_run = options.dryRun;
    printJson({ action: command, queue: queue.name, dry_run, matched, changed, skipped, cursor });
  } else console.log([resultText(change, result), ...(isStopped ? [] : hints(change, result))].join("\n"));
  if (isStopped) {
    console.error(stoppedText(change, result));
    return exitCodes.stopped;
  }
  return options.dryRun ? exitCodes.done : exitCodeOf(result);
}

/** A job that is already as the command wants it is no failure, as for one job. */
function exitCodeOf({ matched, changed, skipped }: ChangeResult): ExitCode {
  const { locked = 0, unreadable = 0, already_due = 0, aborting = 0 } = skipped;
  const hasFailed = locked > 0 || unreadable > 0 || (changed === 0 && matched > already_due + aborting);
  return hasFailed ? exitCodes.failed : exitCodes.done;
}

function resultText({ queue: { name }, action, options }: Change, result: ChangeResult): string {
  const { matched, changed, cursor } = result;
  const { participle } = action;
  const counted = [
    `${jobCount(matched)} of queue ${name} ${matched === 1 ? "matches" : "match"}.`,
    changed === 0 ? `Nothing can be ${participle}.` : `${jobCount(changed)} can be ${participle}.`,
  ];
  const done = [`${jobCount(changed)} of queue ${name} ${changed === 1 ? "was" : "were"} ${participle}.`];
  return [
    ...(options.dryRun ? counted : done),
    skippedText(result),
    cursor === null ? "" : "There may be more.",
  ]
    .filter(Boolean)
    .join(" ");
}

/** Returns lines that say what to run next. */
function hints({ action, filter, options: { dryRun } }: Change, { changed, cursor }: ChangeResult): string[] {
  const times = timesOf(filter);
  const next = cursor === null ? [] : [commandLine({ ...times, cursor })];
  if (!dryRun) return next.map((command) => `To go on: ${command}`);
  return [
    ...(changed === 0 ? [] : [invitation(action.infinitive("them"), times)]),
    ...next.map((command) => `To count the next ones: ${command}`),
  ];
}

function skippedText({ skipped }: ChangeResult): string {
  const parts = Object.entries(skipped).map(
    ([reason, count]) => `${count.toLocaleString("en-US")} (${reasons[reason as SkipReason]})`,
  );
  return parts.length === 0 ? "" : `Skipped: ${parts.join(", ")}.`;
}

function stoppedText({ action, filter, options }: Change, { matched, changed, cursor }: ChangeResult): string {
  const { dryRun, limit } = options;
  const progress = dryRun ? `${jobCount(matched)} counted` : `${jobCount(changed)} ${action.participle}`;
  if (cursor === null) return `Stopped: ${progress}.`;
  const rest = limit === undefined ? {} : { limit: String(Math.max(limit - matched, 1)) };
  return `Stopped: ${progress}. To go on: ${commandLine({ ...timesOf(filter), ...rest, cursor })}`;
}

/** True if an option has a value that the queue refuses, such as an invalid cursor. */
const isInvalid = (error: unknown): error is SaqError =>
  error instanceof SaqError && error.code === "invalid_job";

/** The change begins with the first job, also if the count went on with a cursor. */
const invitation = (what: string, times: Values = {}): string =>
  `Nothing was changed. To ${what}: ${commandLine({ ...times, cursor: null, yes: true })}`;

/** Values of options; null leaves an option out. */
type Values = Partial<Record<OptionName, string | true | null>>;

/** Returns this command with other values of some options, for a POSIX shell. */
function commandLine(values: Values): string {
  const typed = process.argv.slice(2);
  // After "--" every word is a KEY.
  const end = typed.indexOf("--");
  const words = end < 0 ? typed : typed.slice(0, end);
  const names = Object.keys(values);
  const isReplaced = (word = "") => names.some((name) => word === `--${name}`);
  const kept = words.filter(
    (word, index) =>
      !isReplaced(word.split("=", 1)[0]) && !(words[index - 1] !== "--yes" && isReplaced(words[index - 1])),
  );
  const added = Object.entries(values).flatMap(([name, value]) =>
    value === null ? [] : value === true ? [`--${name}`] : [`--${name}`, value],
  );
  const all = [...kept, ...added, ...(end < 0 ? [] : typed.slice(end))];
  return `npm run saq -- ${all.map(quoted).join(" ")}`;
}

const quoted = (word: string): string =>
  /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;

/** Who makes the change, for the log: in a container there may be no such user. */
function caller(): string {
  let name: string;
  try {
    name = userInfo().username;
  } catch {
    name = String(process.getuid?.() ?? "unknown");
  }
  return `${name}@${hostname()} (command line)`;
}
