/** Worker processes that are killed, stopped and restarted at random. */
import { WorkerProcess, type WorkerProcessOptions } from "../processes/child.js";
import type { Dice } from "./random.js";

/** One process of the fleet, over now. Times are epoch ms. */
export interface Life {
  pid: number;
  ended: number;
  code: number | NodeJS.Signals;
  /** It was told to stop, so that it owes an orderly end. */
  asked: boolean;
  /** Keys of jobs whose task did not end within its hard deadline, and went on beside what came after (W-12). */
  overdue: string[];
  /** Ends that it offered and was refused, because others had taken the job over. */
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

  /** Keeps `size` processes going and in trouble until `endTrouble`; resolves when all have ended in order. */
  async run(size: number, dice: Dice, drained: Promise<unknown>): Promise<void> {
    await Promise.all(Array.from({ length: size }, () => this.#berth(dice.fork(), drained)));
  }

  /** From now on nobody is killed any more, so that what is left can be drained. */
  endTrouble(): void {
    this.#over = true;
  }

  /** One place in the fleet: a process after the other. The last one lives until all is drained. */
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

  /** Twelve processes on a small machine take their time. */
  async #start(): Promise<WorkerProcess> {
    const worker = new WorkerProcess(this.#options);
    await worker.said("Worker starting: default");
    return worker;
  }

  /** Some pauses of the process, until its end is due or the trouble is over. */
  async #trouble(worker: WorkerProcess, dice: Dice): Promise<void> {
    // Only who has watched for 12 s may call a job stuck, so some need to be left in peace.
    const peace = Date.now() + (dice.chance(0.4) ? dice.between(14_000, 22_000) : 0);
    while (Date.now() < peace && !this.#over) await sleep(200);
    for (let rounds = dice.between(1, 3); rounds > 0 && !this.#over; rounds--) {
      await sleep(dice.between(300, 5_000));
      if (this.#over || dice.chance(0.4)) continue;
      worker.signal("SIGSTOP");
      this.done.paused++;
      // Most are short; some are longer than a worker's row lives, and than a job's timeout with all grace.
      await sleep(dice.chance(0.6) ? dice.between(50, 2_000) : dice.between(5_000, 14_000));
      // Some are killed in their sleep.
      if (!this.#over && rounds === 1 && dice.chance(0.3)) return;
      worker.signal("SIGCONT");
    }
  }

  async #end(worker: WorkerProcess, signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    if (signal === "SIGKILL") this.done.killed++;
    else this.done.restarted++;
    // A stopped process takes a SIGTERM only when it goes on; SIGKILL it takes at once.
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
