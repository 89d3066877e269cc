/**
 * What a worker does at each due second: it looks for jobs, or, when it has nothing to do, lets the second pass.
 *
 * Jobs that are due soon are told when they are stored, so a worker that rests need not ask for them. It looks what else
 * may come: a later job, whose second is then known, or jobs that run elsewhere or wait in groups, of which Python tells
 * nobody when they are given back. Only when there is none of these does it look less often: 3 -> 0.2 statements per
 * second (an idle worker in all, with what upkeep spares: 4.5 -> 0.9 transactions per second). What is told to nobody and
 * found by nothing else, as a row that somebody inserts by hand or a later job whose transaction stayed open until it was
 * nearly due, waits up to 5 s then.
 */
import { toldAheadSeconds } from "../broker.js";
import type { Queue } from "../queue/queue.js";
import type { Runner } from "./runner.js";

/** Half of what is told ahead, so that a clock that is off or a late look leaves no job between the two. */
const longestRest = toldAheadSeconds / 2;

export class Rest {
  #until = 0;
  /** Then something becomes due. */
  #isDue = false;
  #wakes = 0;

  constructor(
    private readonly queue: Queue,
    private readonly runner: Runner,
  ) {}

  /** No tick is needed before that, epoch ms on the database's clock. */
  get until(): number {
    return this.#until * 1_000;
  }

  /** Something may be claimable, now or soon. */
  wake(): void {
    this.#wakes++;
    this.#until = 0;
    this.#isDue = false;
    this.runner.wake();
  }

  /** A due second. */
  async tick(): Promise<void> {
    const { broker, config } = this.queue;
    const now = broker.now() / 1_000;
    // Further ahead than a rest is long: the database's clock was set back since.
    if (now < this.#until && this.#until <= now + longestRest) return;
    const isDue = this.#isDue;
    const wakes = this.#wakes;
    this.#until = 0;
    this.#isDue = false;
    if (isDue || !this.runner.isResting) return this.runner.tick();
    const { due, grouped, running } = await broker.outlook(config.priorities).catch((error: unknown) => {
      // Claiming notices too, says so and tries again (D-4).
      this.runner.wake();
      throw error;
    });
    if (grouped || (due !== null && due <= now)) return this.runner.tick();
    if (running || !broker.isListening || wakes !== this.#wakes) return;
    this.#isDue = due !== null && due <= now + longestRest;
    this.#until = this.#isDue && due !== null ? due : now + longestRest;
  }
}
