/** An application that enqueues all kinds of jobs at random, and people who abort and retry jobs by hand. */
import { inSeconds, SaqError } from "../../../../templates/backend/saq/index.js";
import type { openQueue } from "../../support/processes/enqueuer.js";
import type { Dice } from "./random.js";

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** What storage has promised by its answers. */
export class Promised {
  /** How often an enqueue of the key returned a job. */
  readonly stored = new Map<string, number>();
  /** How often a retry by hand returned `queued`. */
  readonly retried = new Map<string, number>();
  readonly answers: Record<string, number> = {};

  count(answer: string): void {
    this.answers[answer] = (this.answers[answer] ?? 0) + 1;
  }

  add(to: Map<string, number>, key: string): void {
    to.set(key, (to.get(key) ?? 0) + 1);
  }
}

type Queue = ReturnType<typeof openQueue>["queue"];

export async function loadAtRandom(queue: Queue, dice: Dice, isOver: () => boolean): Promise<Promised> {
  const promised = new Promised();
  const keys: string[] = [];
  const enqueue = async (own: Dice) => {
    const { payload, options } = job(own);
    const stored = await queue.enqueue("churn", payload, options);
    promised.count(stored ? "stored" : "refused");
    if (!stored) return;
    promised.add(promised.stored, stored.key);
    keys.push(stored.key);
  };
  /** Returns one of the 60 latest keys, whose jobs mostly still wait or run. */
  const someKey = (own: Dice) => keys[own.between(Math.max(0, keys.length - 60), keys.length - 1)];
  const byHand = async (own: Dice) => {
    const key = own.chance(0.7) ? someKey(own) : own.one(keys);
    if (key === undefined) return;
    if (own.chance(0.6)) return promised.count(`abort: ${await queue.abort(key, "by hand")}`);
    const answer = await queue.retry(key);
    promised.count(`retry: ${answer}`);
    if (answer === "queued") promised.add(promised.retried, key);
  };
  const actor = async (own: Dice, act: (own: Dice) => Promise<unknown>, pause: [number, number]) => {
    while (!isOver()) {
      try {
        await act(own);
      } catch (error) {
        // A worker that is paused in the middle of a transaction holds rows. The call then fails and changes nothing.
        if (!(error instanceof SaqError) || !/^(job_held|key_held)$/.test(error.code)) throw error;
        promised.count(error.code);
      }
      await sleep(own.between(...pause));
    }
  };
  await Promise.all([
    ...Array.from({ length: 4 }, () => actor(dice.fork(), enqueue, [20, 300])),
    actor(dice.fork(), byHand, [50, 500]),
  ]);
  return promised;
}

function job(dice: Dice) {
  // Most jobs are quick. Some take as long as their timeout or longer.
  const slow = dice.chance(0.2);
  const ms = slow ? dice.between(500, 3_000) : dice.between(0, 100);
  return {
    payload: { ms, fails: dice.chance(0.3) ? dice.between(1, 3) : 0 },
    options: {
      ...(dice.chance(0.2) ? { key: `key-${dice.between(0, 9)}` } : {}),
      ...(dice.chance(0.4) ? { groupKey: `group-${dice.between(0, 15)}` } : {}),
      ...(dice.chance(0.3) ? { scheduled: inSeconds(dice.between(1, 4)) } : {}),
      priority: dice.between(0, 3),
      timeout: dice.one([0, 1, 2, 10]),
      retries: dice.between(1, 4),
      retryDelay: dice.one([0, 0, 0.3, 1]),
      retryBackoff: dice.one([false, true, 2]),
    },
  };
}
