/** Worker processes that are killed, paused and restarted at random. */
import { WorkerProcess, type WorkerProcessOptions } from "../../support/processes/child.js";
import type { Dice } from "./random.js";

/** One process of the fleet that has ended. Times are epoch ms. */
export interface Life {
  pid: number;
  ended: number;
  code: number | NodeJS.Signals;
  /** The process was asked to stop, so it must end with code 0. */
  asked: boolean;
  /** Keys of jobs whose task did not end within its hard deadline and went on beside later runs (W-12). */
  overdue: string[];
  /** Number of settlements that were refused because others had taken the job over. */
  refused: number;
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

export class Fleet {
  readonly lives: Life[] = [];
  readonly done = { killed: 0, paused: 0, restarted: 0 };
  readonly #options: WorkerProcessOptions;
  #over = false;

  constructor(options: WorkerProcessOptions) {
    this.#options = options;
  }

  /**
   * Keeps `size` processes running and in trouble until `endTrouble`. Resolves when all of them have ended in order.
   */
  async run(size: number, dice: Dice, drained: Promise<unknown>): Promise<void> {
    await Promise.all(Array.from({ length: size }, () => this.#berth(dice.fork(), drained)));
  }

  /** From now on no process is killed any more, so that the remaining jobs can be drained. */
  endTrouble(): void {
    this.#over = true;
  }

  /** One place in the fleet: one process after the other. The last one lives until `drained`. */
  async #berth(dice: Dice, drained: Promise<unknown>): Promise<void> {
    let worker = await this.#start();
    for (;;) {
      await this.#trouble(worker, dice);
      if (this.#over) break;
      await this.#end(worker, dice.chance(0.6) ? "SIGKILL" : "SIGTERM");
      await sleep(dice.between(0, 1_500));
      worker = await this.#start();
    }
    await drained;
    await this.#end(worker, "SIGTERM");
  }

  /** Resolves when the worker takes jobs. Twelve processes on a small machine need time for their start. */
  async #start(): Promise<WorkerProcess> {
    const worker = new WorkerProcess(this.#options);
    await worker.said("Worker starting: default");
    return worker;
  }

  /** Pauses the process a few times, until its end is due or the trouble is over. */
  async #trouble(worker: WorkerProcess, dice: Dice): Promise<void> {
    // A worker may call a job stuck only after it has watched for 12 s, so some workers must be left undisturbed.
    const peace = Date.now() + (dice.chance(0.4) ? dice.between(14_000, 22_000) : 0);
    while (Date.now() < peace && !this.#over) await sleep(200);
    for (let rounds = dice.between(1, 3); rounds > 0 && !this.#over; rounds--) {
      await sleep(dice.between(300, 5_000));
      if (this.#over || dice.chance(0.4)) continue;
      worker.signal("SIGSTOP");
      this.done.paused++;
      // Most pauses are short. Some are longer than a worker's row lives, and than a job's timeout with all grace.
      await sleep(dice.chance(0.6) ? dice.between(50, 2_000) : dice.between(5_000, 14_000));
      // Some processes are killed while they are paused.
      if (!this.#over && rounds === 1 && dice.chance(0.3)) return;
      worker.signal("SIGCONT");
    }
  }

  async #end(worker: WorkerProcess, signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    if (signal === "SIGKILL") this.done.killed++;
    else this.done.restarted++;
    // A paused process receives a SIGTERM only when it continues, but a SIGKILL at once.
    if (signal === "SIGTERM") worker.signal("SIGCONT");
    worker.signal(signal);
    const { code } = await worker.exit();
    const overdue = worker.lines
      .filter(({ message }) => message.includes("did not finish cancellation in time"))
      .map(({ job }) => String(job));
    const refused = worker.lines.filter(({ message }) => message.startsWith("lost the job")).length;
    this.lives.push({
      pid: worker.pid,
      ended: Date.now(),
      code,
      asked: signal === "SIGTERM",
      overdue,
      refused,
    });
  }
}
