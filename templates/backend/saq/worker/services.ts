/** The services that a worker offers to its tasks and hooks. */
import { ConfigError } from "../errors.js";
import type { Logger } from "../logger.js";
import type { Queue } from "../queue/queue.js";
import type { AnyTask, ApplyOptions, EnqueueOptions, ResultOf, WorkerView } from "../tasks/task.js";
import type { ContextServices } from "./attempt/context.js";
import type { Report } from "./settlement/report.js";

/** Returns what tasks and hooks see of their worker. `running`: its running jobs by key. */
export function workerView(
  { config: { concurrency, metadata } }: Queue,
  id: string,
  running: ReadonlyMap<string, unknown>,
  report: Pick<Report, "stats">,
): WorkerView {
  return {
    id,
    concurrency,
    metadata,
    get runningKeys() {
      return [...running.keys()];
    },
    get stats() {
      return { ...report.stats };
    },
  };
}

export class TaskServices implements ContextServices {
  readonly queue: { readonly name: string };
  readonly #queue: Queue;
  readonly #taskNames: Map<AnyTask, string>;

  constructor(
    queue: Queue,
    readonly worker: WorkerView,
    readonly log: Logger,
  ) {
    this.queue = { name: queue.name };
    this.#queue = queue;
    this.#taskNames = new Map(Object.entries(queue.config.tasks).map(([name, task]) => [task, name]));
  }

  get workerId(): string {
    return this.worker.id;
  }

  // Properties, so that a task may take them out of ctx: `async ({ enqueue }: Context) => ...`.
  readonly enqueue: ContextServices["enqueue"] = async (task, ...args) => {
    const [payload, options] = args as [payload?: unknown, options?: EnqueueOptions];
    return this.#queue.enqueue(this.#nameOf(task, "enqueue"), payload, options);
  };

  readonly apply: ContextServices["apply"] = async (task, ...args) => {
    const [payload, options] = args as [payload?: unknown, options?: ApplyOptions];
    return this.applyWith(task, payload, options);
  };

  async applyWith<T extends AnyTask>(
    task: T,
    payload: unknown,
    options?: ApplyOptions,
  ): Promise<ResultOf<T>> {
    return (await this.#queue.apply(this.#nameOf(task, "apply"), payload, options)) as ResultOf<T>;
  }

  #nameOf(task: AnyTask, method: string): string {
    const name = this.#taskNames.get(task);
    if (name !== undefined) return name;
    throw new ConfigError(
      `ctx.${method}: this task is not in the tasks of queue "${this.#queue.name}"; add it in defineQueue`,
    );
  }
}
