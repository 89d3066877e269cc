/** Calls the task of a claimed job. Payload and result go through the task's schemas. */
import type { QueueConfig } from "../config/index.js";
import {
  findTask,
  inputSchemaOf,
  isThreadTask,
  type JobContext,
  outputSchemaOf,
  runnerOf,
} from "../tasks/task.js";
import { validatePayload, validateResult } from "../tasks/validation.js";
import type { Attempt } from "./attempt.js";
import { unknownTask } from "./settlement/refusals.js";
import type { Threads } from "./threads/threads.js";

/** Calls the task and returns its result, or a promise of it. `threads` is null if no task needs a thread. */
export function invokeTask(
  config: QueueConfig,
  threads: Threads | null,
  attempt: Attempt,
  ctx: JobContext,
): unknown {
  const { function: name, kwargs } = attempt.fields;
  const task = findTask(config.tasks, name);
  if (!task) throw unknownTask(config, name);
  const run =
    threads && isThreadTask(task)
      ? threads.runnerOf(task, attempt)
      : (runnerOf(task) as (ctx: JobContext, payload: unknown) => unknown);
  const [input, output] = [inputSchemaOf(task), outputSchemaOf(task)];
  const given = kwargs ?? {};
  const payload = input ? validatePayload(name, input, given) : given;
  const returned = payload instanceof Promise ? payload.then((taken) => run(ctx, taken)) : run(ctx, payload);
  if (!output) return returned;
  return Promise.resolve(returned).then((result) => validateResult(name, output, result));
}
