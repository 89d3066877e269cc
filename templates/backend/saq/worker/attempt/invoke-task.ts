/** Calls the task of a claimed job. Payload and result go through the task's schemas. */
import type { QueueConfig } from "../../config/index.js";
import { returnedSnooze } from "../../tasks/snooze.js";
import {
  findTask,
  inputSchemaOf,
  isThreadTask,
  type JobContext,
  outputSchemaOf,
  runnerOf,
} from "../../tasks/task.js";
import { validatePayload, validateResult } from "../../tasks/validation.js";
import { unknownTaskError } from "../settlement/refusals.js";
import type { Threads } from "../threads/threads.js";
import type { Attempt } from "./attempt.js";

/** Calls the task and returns its result, or a promise of it. `threads` is null if no task needs a thread. */
export function invokeTask(
  config: QueueConfig,
  threads: Threads | null,
  attempt: Attempt,
  ctx: JobContext,
): unknown {
  const { function: name, kwargs } = attempt.fields;
  const task = findTask(config.tasks, name);
  if (!task) throw unknownTaskError(config, name);
  const run =
    threads && isThreadTask(task)
      ? threads.runnerOf(task, attempt)
      : (runnerOf(task) as (ctx: JobContext, payload: unknown) => unknown);
  const [inputSchema, outputSchema] = [inputSchemaOf(task), outputSchemaOf(task)];
  const storedPayload = kwargs ?? {};
  const payload = inputSchema ? validatePayload(name, inputSchema, storedPayload) : storedPayload;
  const returned = payload instanceof Promise ? payload.then((value) => run(ctx, value)) : run(ctx, payload);
  if (!outputSchema) return returned;
  return Promise.resolve(returned).then((result) =>
    // A snooze that was returned by mistake fails the job later. The schema could turn it into a valid result.
    returnedSnooze(result) === null ? validateResult(name, outputSchema, result) : result,
  );
}
