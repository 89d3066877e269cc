/** Finds the jobs that were enqueued, for a test to check. */
import { AssertionError } from "node:assert";
import { isDeepStrictEqual } from "node:util";
import type { Job } from "../queue/job-handle.js";
import type { Queue } from "../queue/queue.js";
import type { PayloadOf, ResultOf, TaskMap } from "../tasks/task.js";

/**
 * Members that the payload must have, or a function that returns true if the payload fits. A Date matches its text;
 * `expect.any(String)` and other matchers match as in their test runner.
 */
export type PayloadMatch<Payload> = DeepPartial<Payload> | ((payload: Payload) => boolean);
type DeepPartial<T> = T extends readonly unknown[]
  ? T
  : T extends object
    ? { [K in keyof T]?: DeepPartial<T[K]> }
    : T;

const maxListed = 20;

/**
 * Returns the stored jobs of a task, whatever their status, in the order in which they were enqueued. `match` restricts
 * them by their payload.
 *
 * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `queue.connect` does
 * @example
 * const mails = await enqueued(queue, "sendMail");
 */
export async function enqueued<Tasks extends TaskMap, Name extends keyof Tasks & string>(
  queue: Queue<Tasks>,
  task: Name,
  match?: PayloadMatch<PayloadOf<Tasks[Name]>>,
): Promise<Job<ResultOf<Tasks[Name]>>[]> {
  const found = (await stored(queue)).filter((job) => job.function === task && matches(job.kwargs, match));
  return found as Job<ResultOf<Tasks[Name]>>[];
}

/**
 * Returns the only job of a task that was enqueued with such a payload.
 *
 * @throws AssertionError listing the stored jobs, if there is no such job or more than one
 * @throws SaqError database_unavailable, queue_closed, config or schema_version, as `queue.connect` does
 * @example
 * const job = await expectEnqueued(queue, "sendMail", { to: "ann@example.com" });
 */
export async function expectEnqueued<Tasks extends TaskMap, Name extends keyof Tasks & string>(
  queue: Queue<Tasks>,
  task: Name,
  match?: PayloadMatch<PayloadOf<Tasks[Name]>>,
): Promise<Job<ResultOf<Tasks[Name]>>> {
  const found = await enqueued(queue, task, match);
  const [job] = found;
  if (job && found.length === 1) return job;
  const wanted =
    match === undefined ? "" : ` with ${typeof match === "function" ? `${match}` : toText(match)}`;
  const all = await stored(queue);
  const listed = all
    .slice(-maxListed)
    .map((other) => `\n  ${other.function} ${toText(other.kwargs)} (${other.status}, ${other.key})`);
  const amount = found.length === 0 ? "no job" : `${found.length} jobs`;
  throw new AssertionError({
    message:
      `Expected one job of task "${task}"${wanted} in queue "${queue.name}", found ${amount}. ` +
      (all.length === 0 ? "The queue is empty." : `Jobs in the queue: ${all.length}${listed.join("")}`),
    actual: found.length,
    expected: 1,
    // Jest knows this operator: it shows the message, and not that 0 is not 1.
    operator: "fail",
    stackStartFn: expectEnqueued,
  });
}

async function stored(queue: Pick<Queue, "iterJobs">): Promise<Job[]> {
  const jobs: Job[] = [];
  for await (const job of queue.iterJobs()) jobs.push(job);
  // Generated keys ascend in time, also within one millisecond.
  return jobs.sort((a, b) => a.queued - b.queued || (a.key < b.key ? -1 : 1));
}

function matches(payload: unknown, match: unknown): boolean {
  if (match === undefined) return true;
  return typeof match === "function" ? match(payload) === true : contains(payload, match);
}

/** The matchers of jest and vitest. */
interface Matcher {
  asymmetricMatch(value: unknown): boolean;
}

function contains(value: unknown, wanted: unknown): boolean {
  if (typeof wanted !== "object" || wanted === null)
    return isDeepStrictEqual(value ?? undefined, wanted ?? undefined);
  if (typeof (wanted as Partial<Matcher>).asymmetricMatch === "function") {
    return (wanted as Matcher).asymmetricMatch(value);
  }
  const { toJSON } = wanted as { toJSON?: () => unknown };
  if (typeof toJSON === "function") return contains(value, toJSON.call(wanted));
  if (typeof value !== "object" || value === null || Array.isArray(value) !== Array.isArray(wanted))
    return false;
  if (Array.isArray(wanted) && wanted.length !== (value as unknown[]).length) return false;
  return Object.entries(wanted).every(([name, member]) =>
    contains((value as Record<string, unknown>)[name], member),
  );
}

function toText(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 200 ? `${text.slice(0, 200)}...` : text;
}
