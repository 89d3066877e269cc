/**
 * Jobs that are enqueued and run all the time while a test changes the servers, and what became of them. Redis
 * replicates asynchronously: only what a replica has confirmed must survive the end of the master.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import type { Context } from "../../../templates/backend/saq/tasks/task.js";
import { LogBook } from "./log-book.js";
import { eventually } from "./processes/child.js";
import type { TestServer } from "./redis-topology.js";
import { openQueue, startWorker } from "./scenario.js";

type Tasks = { step: (ctx: Context, payload: { n: number }) => Promise<number> };

export interface LoadResult {
  /** Acknowledged enqueues. */
  jobs: number;
  /** Acknowledged jobs that have not ended and are not stored. */
  lost: string[];
  /** Jobs that ran again after their end had been acknowledged to their worker. */
  doubled: string[];
}

const producers = 4;

export class Load {
  readonly queue: Queue<Tasks>;
  /** What the queue's connections log. */
  readonly log = new LogBook();
  /** When each enqueue was acknowledged, by performance.now(). */
  readonly #acknowledged = new Map<string, number>();
  readonly #ended = new Set<string>();
  readonly #doubled = new Set<string>();
  /** Enqueues that ended with an error. They may be stored. */
  failures = 0;
  #isOver = false;
  #producing: Promise<unknown> = Promise.resolve();

  private constructor(url: string, options: { name?: string }) {
    const step: Tasks["step"] = async ({ job }) => {
      if (this.#ended.has(job.key)) this.#doubled.add(job.key);
      await sleep(2);
      return 1;
    };
    const afterProcess = ({ job }: Context) => {
      this.#ended.add(job.key);
    };
    this.queue = openQueue(
      { url },
      { step },
      { concurrency: 10, afterProcess, logger: this.log, ...options },
    );
  }

  /** Starts two workers and enqueues until `finish`. */
  static async start(url: string, options: { name?: string } = {}): Promise<Load> {
    const load = new Load(url, options);
    for (let workers = 0; workers < 2; workers++) await startWorker(load.queue);
    load.#producing = Promise.all(Array.from({ length: producers }, () => load.#produce()));
    await load.isGoingOn();
    return load;
  }

  /** Resolves when jobs that were enqueued after the call have been acknowledged and have ended. */
  async isGoingOn(): Promise<void> {
    const since = performance.now();
    const isRecent = (key: string) => (this.#acknowledged.get(key) ?? 0) > since;
    await eventually("jobs are enqueued and run", async () => [...this.#ended].filter(isRecent).length >= 20);
  }

  /** Returns what the replica of `master` has confirmed: acknowledged enqueues, and acknowledged ends of jobs. */
  async confirmed(master: TestServer): Promise<{ enqueued: Set<string>; ended: Set<string> }> {
    const enqueued = new Set(this.#acknowledged.keys());
    const ended = new Set(this.#ended);
    await eventually("a replica has confirmed", async () => {
      // WAIT waits for the writes of its own connection, and so for all previous ones of others.
      await master.send("SET", `confirmed:{${this.queue.name}}`, "1");
      return Number(await master.send("WAIT", "1", "1000")) >= 1;
    });
    return { enqueued, ended };
  }

  /** Stops enqueueing, waits until the workers have run what is stored, and returns what became of the jobs. */
  async finish(): Promise<LoadResult> {
    this.#isOver = true;
    await this.#producing;
    await eventually("all stored jobs have ended", async () => {
      const { queued, active, scheduled } = await this.queue.counts();
      return queued + active + scheduled === 0;
    });
    const keys = [...this.#acknowledged.keys()];
    const stored = await this.queue.broker.jobs(keys);
    const isKnown = new Set(stored.flatMap((job) => (job?.status === "complete" ? [job.key] : [])));
    const lost = keys.filter((key) => !isKnown.has(key) && !this.#ended.has(key));
    return { jobs: keys.length, lost, doubled: [...this.#doubled] };
  }

  async #produce(): Promise<void> {
    for (let n = 0; !this.#isOver; n++) {
      try {
        const job = await this.queue.enqueue("step", { n });
        if (job) this.#acknowledged.set(job.key, performance.now());
      } catch {
        this.failures++;
      }
      await sleep(5);
    }
  }
}

/** Prints what became of the jobs. It checks no limit. */
export function report(what: string, { jobs, lost, doubled }: LoadResult, recoveryMs: number): void {
  process.stderr.write(
    `[measured] ${what}: ${jobs} jobs, ${lost.length} lost, ${doubled.length} doubled, ` +
      `recovery ${(recoveryMs / 1_000).toFixed(1)} s\n`,
  );
}
