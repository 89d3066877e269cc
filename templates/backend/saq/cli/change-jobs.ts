/** The commands that change jobs: `retry`, `abort`, `delete` and `run-now`, of one job or of all that are selected. */
import type { BulkAction, SkipReason } from "../core/bulk-change.js";
import { SaqError } from "../errors.js";
import type { Saq } from "../express/create-saq.js";
import type { ChangeResult } from "../queue/bulk-editor.js";
import type { Job } from "../queue/job-handle.js";
import type { Queue } from "../queue/queue.js";
import { signalSource } from "../worker/index.js";
import type { Flags } from "./arguments.js";
import { caller } from "./caller.js";
import { type ExitCode, exitCodes, usageError } from "./errors.js";
import { filterOf, hasFilter, limitOf } from "./job-filter.js";
import { jobCount, printJson, summaryOf } from "./job-output.js";
import { findJob, tableOf } from "./jobs.js";
import { chooseQueues, loadApp } from "./load-app.js";
import { ProgressLine } from "./progress-line.js";

/** What a command does with jobs, as its messages say it. */
interface Action {
  command: string;
  /** "can be ..." */
  past: string;
  /** "To ... them" */
  verb: (object: string) => string;
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
    past: "retried",
    verb: (object) => `retry ${object}`,
    changeOne: (queue, key) => queue.retry(key),
    done: { queued: "waits again" },
    refused: {
      not_finished: "is not finished; only a complete, failed or aborted job can be retried",
      unreadable: `cannot be retried: ${unreadable}`,
    },
  },
  abort: {
    command: "abort",
    past: "aborted",
    verb: (object) => `abort ${object}`,
    changeOne: (queue, key) => queue.abort(key),
    done: { aborted: "is aborted", aborting: "runs, and was asked to end" },
    refused: { not_active: "is finished; only a job that waits or runs can be aborted" },
  },
  delete: {
    command: "delete",
    past: "deleted",
    verb: (object) => `delete ${object}`,
    changeOne: (queue, key) => queue.delete(key),
    done: { deleted: "is deleted" },
    refused: { running: "runs; only a job that waits or is finished can be deleted. Abort it first" },
  },
  runNow: {
    command: "run-now",
    past: "made due",
    verb: (object) => `make ${object} due now`,
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
        by: `${caller()} (command line)`,
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
    else console.log(`${shown(job, queue)}\n${invitation(action.verb("it"))}`);
    return exitCodes.done;
  }
  const answer = await action.changeOne(queue, job.key);
  const text = answer === null ? "does not exist any more" : (action.done[answer] ?? action.refused[answer]);
  const isDone = answer !== null && answer in action.done;
  if (flags.json) printJson({ ...base, dry_run: false, answer, changed: isDone });
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

async function changeMany({ queue, name, action, filter, options, flags }: Change): Promise<ExitCode> {
  const stopped = new AbortController();
  const endListening = signalSource()({
    stop: () => stopped.abort(),
    hurry: () => process.exit(exitCodes.stopped),
  });
  const line = new ProgressLine(
    (count) => `${jobCount(count)} ${options.dryRun ? "counted" : action.past} so far`,
  );
  let last: ChangeResult | null = null;
  let result: ChangeResult;
  try {
    result = await queue.changeMany(filter, name, {
      ...options,
      signal: stopped.signal,
      onProgress: (progress) => {
        last = progress;
        line.show(progress.changed);
      },
    });
  } catch (error) {
    line.end();
    if (last) console.error(stoppedText(action, options, last));
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
  } else if (options.dryRun) console.log(countText(queue, action, result));
  else console.log(doneText(queue, action, result));
  if (isStopped) {
    console.error(stoppedText(action, options, result));
    return exitCodes.stopped;
  }
  return !options.dryRun && skipped.locked ? exitCodes.failed : exitCodes.done;
}

function countText({ name }: Queue, { past, verb }: Action, result: ChangeResult): string {
  const { matched, changed, cursor } = result;
  const sentences = [
    `${jobCount(matched)} of queue ${name} ${matched === 1 ? "matches" : "match"}.`,
    cursor === null ? "" : "There may be more.",
    changed === 0 ? `Nothing can be ${past}.` : `${jobCount(changed)} can be ${past}.`,
    skippedText(result),
  ];
  const text = sentences.filter(Boolean).join(" ");
  return changed === 0 ? text : `${text}\n${invitation(verb("them"))}`;
}

const doneText = ({ name }: Queue, { past }: Action, result: ChangeResult): string =>
  [
    `${jobCount(result.changed)} of queue ${name} ${result.changed === 1 ? "was" : "were"} ${past}.`,
    result.cursor === null ? "" : "There may be more.",
    skippedText(result),
  ]
    .filter(Boolean)
    .join(" ");

function skippedText({ skipped }: ChangeResult): string {
  const parts = Object.entries(skipped).map(
    ([reason, count]) => `${count.toLocaleString("en-US")} (${reasons[reason as SkipReason]})`,
  );
  return parts.length === 0 ? "" : `Skipped: ${parts.join(", ")}.`;
}

function stoppedText({ past }: Action, { dryRun }: { dryRun: boolean }, result: ChangeResult): string {
  const progress = dryRun ? `${jobCount(result.matched)} counted` : `${jobCount(result.changed)} ${past}`;
  if (result.cursor === null) return `Stopped: ${progress}.`;
  return `Stopped: ${progress}. To go on: ${commandLine(["--cursor", result.cursor])}`;
}

/** True if an option has a value that the queue refuses, such as a cursor that is none. */
const isInvalid = (error: unknown): error is SaqError =>
  error instanceof SaqError && error.code === "invalid_job";

const invitation = (what: string): string => `Nothing was changed. To ${what}: ${commandLine(["--yes"])}`;

/** Returns this command with more arguments, for a POSIX shell. A cursor in it is replaced. */
function commandLine(more: readonly string[]): string {
  const typed = process.argv.slice(2);
  const place = typed.findIndex((word) => word === "--cursor" || word.startsWith("--cursor="));
  const kept =
    place < 0 || more[0] !== "--cursor" ? typed : typed.toSpliced(place, typed[place] === "--cursor" ? 2 : 1);
  // After "--" every word is a KEY.
  const end = kept.indexOf("--");
  const words = end < 0 ? [...kept, ...more] : kept.toSpliced(end, 0, ...more);
  return `npm run saq -- ${words.map(quoted).join(" ")}`;
}

const quoted = (word: string): string =>
  /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
