/** The commands that show jobs: `jobs` lists them, `job KEY` shows one. */
import type { Saq } from "../express/create-saq.js";
import type { Job } from "../queue/job-handle.js";
import type { Queue } from "../queue/queue.js";
import type { Flags } from "./arguments.js";
import { CliError, type ExitCode, exitCodes, usageError } from "./errors.js";
import { filterOf, limitOf } from "./job-filter.js";
import {
  cell,
  detailsOf,
  type JobAttempt,
  type JobDetails,
  type JobSummary,
  plain,
  printJson,
  summaryOf,
} from "./job-output.js";
import { chooseQueues, loadApp } from "./load-app.js";
import { table } from "./table.js";

const defaultLimit = 50;

export async function listJobs(flags: Flags): Promise<ExitCode> {
  const filter = filterOf(flags);
  const limit = limitOf(flags) ?? defaultLimit;
  const saq = await loadApp(flags.config);
  try {
    const queues = chooseQueues(saq, namesOf(flags));
    const lists = await Promise.all(queues.map((queue) => queue.list({ ...filter, limit })));
    const listed = lists.flatMap((found, index) =>
      found.map((job) => summaryOf(job, queues[index]?.broker.now() ?? Date.now())),
    );
    if (flags.json) printJson({ jobs: listed });
    else console.log(listed.length === 0 ? "There are no such jobs." : tableOf(listed));
    const isFull = lists.some((found) => found.length === limit);
    if (isFull && !flags.json) console.log(`There may be more jobs. To see more: --limit ${2 * limit}`);
    return exitCodes.done;
  } finally {
    await saq.close();
  }
}

export async function showJob(flags: Flags): Promise<ExitCode> {
  const saq = await loadApp(flags.config);
  try {
    const { job, queue } = await findJob(saq, flags);
    const details = detailsOf(job, queue.broker.now());
    if (flags.json) printJson({ job: details });
    else console.log(textOf(details));
    return exitCodes.done;
  } finally {
    await saq.close();
  }
}

/** The names in --queue; none means all queues. */
const namesOf = ({ values: { queue } }: Flags): string[] => (queue === undefined ? [] : [queue]);

/**
 * Returns the job with the key on the command line, and its queue.
 *
 * @throws CliError with exit code 1 if no queue has it, with exit code 2 if more than one queue has such a job
 */
export async function findJob(saq: Saq, flags: Flags): Promise<{ job: Job; queue: Queue }> {
  const { argument: key = "" } = flags;
  const queues = chooseQueues(saq, namesOf(flags));
  const read = await Promise.all(queues.map(async (queue) => ({ queue, job: await queue.job(key) })));
  const found = read.flatMap(({ queue, job }) => (job ? [{ queue, job }] : []));
  const [first, second] = found;
  if (!first) throw new CliError(`There is no job ${key} in ${queues.map(({ name }) => name).join(", ")}.`);
  if (!second) return first;
  const names = found.map(({ queue }) => queue.name).join(" and ");
  throw usageError(`The queues ${names} have a job ${key}. Choose one of them: --queue ${first.queue.name}`);
}

export const tableOf = (listed: readonly JobSummary[]): string =>
  table([
    ["queue", "key", "task", "state", "attempts", "enqueued", "error"],
    ...listed.map(({ queue, key, task, state, attempts, enqueued, error }) => [
      queue,
      // Whole, so that it can be copied into the next command.
      cell(key, Number.POSITIVE_INFINITY),
      cell(task),
      state,
      attempts,
      enqueued ?? "",
      cell(error ?? ""),
    ]),
  ]);

const attemptText = ({ ended, attempt, worker_id, milliseconds, error }: JobAttempt): string =>
  `${ended}  attempt ${attempt}, ${milliseconds.toLocaleString("en-US")} ms, ` +
  `worker ${worker_id === null ? "unknown" : plain(worker_id)}: ${cell(error)}`;

/** Returns a line for each member; what has several lines comes last. */
function textOf({ error, payload, result, meta, history, ...rest }: JobDetails): string {
  const width = Math.max(...Object.keys(rest).map((name) => name.length));
  const line = (name: string, value: unknown) =>
    `${name.padEnd(width)}  ${typeof value === "string" ? plain(value) : plain(JSON.stringify(value))}`;
  const lines = Object.entries(rest).flatMap(([name, value]) => (value === null ? [] : [line(name, value)]));
  lines.push(line("payload", payload), line("result", result), line("meta", meta));
  if (history.length > 0) lines.push("failed attempts:", ...history.map(attemptText));
  if (error !== null) lines.push("error:", plain(error));
  return lines.join("\n");
}
