/** The operations that fast-check generates, and how they run against the real queues. */
import fc from "fast-check";
import { decodeJob } from "../../../../templates/backend/saq/core/wire.js";
import { can, onRedis } from "../../support/test-broker.js";
import { type End, type Event, explain, groupOf, type ModelJob } from "./model.js";
import type { Held, Stage, Wish } from "./stage.js";

/**
 * Numbers choose among what exists when the operation runs: keys by their position, claims from the latest backwards.
 */
export type Operation =
  | { do: "enqueue"; client: number; wish: Wish }
  | { do: "claim"; client: number; limit: number; grouped: boolean; priorities: [number, number] }
  | { do: "settle"; client: number; held: number; end: Exclude<End, "aborted"> }
  | { do: "touch"; client: number; held: number }
  | { do: "notice"; client: number }
  | { do: "abort"; client: number; key: number }
  | { do: "retry"; client: number; key: number }
  | { do: "sweep"; client: number };

/** What happens to the world around the clients. These steps run one after the other. */
export type Turn =
  | { do: "kill"; client: number }
  | { do: "age"; key: number }
  | { do: "expire"; key: number };

const client = fc.nat(2);
const key = fc.nat(5);
const held = fc.nat(5);
const wish: fc.Arbitrary<Wish> = fc.record({
  key: fc.constantFrom("a", "b", "c", null),
  retries: fc.integer({ min: 1, max: 3 }),
  timeout: fc.constantFrom(0, 10),
  ttl: fc.constantFrom(600, 600, 0, -1),
  retryDelay: fc.constantFrom(0, 0, 600),
  priority: fc.integer({ min: 0, max: 2 }),
  group: fc.constantFrom(null, null, "g", "h"),
  delay: fc.constantFrom(0, 0, 0, 900),
});
const bounds = fc.constantFrom<[number, number][]>([0, 32_767], [0, 1], [1, 2]);
const end = fc.constantFrom<Exclude<End, "aborted">[]>(
  "complete",
  "complete",
  "threw",
  "threw",
  "gave up",
  "snoozed",
  "shutdown",
  "release",
);

const make = {
  enqueue: fc.record({ do: fc.constant("enqueue" as const), client, wish }),
  claim: fc.record({
    do: fc.constant("claim" as const),
    client,
    limit: fc.integer({ min: 1, max: 4 }),
    grouped: can("groups") ? fc.boolean() : fc.constant(false),
    priorities: can("priorities") ? bounds : fc.constant<[number, number]>([0, 32_767]),
  }),
  settle: fc.record({ do: fc.constant("settle" as const), client, held, end }),
  touch: fc.record({ do: fc.constant("touch" as const), client, held }),
  notice: fc.record({ do: fc.constant("notice" as const), client }),
  abort: fc.record({ do: fc.constant("abort" as const), client, key }),
  retry: fc.record({ do: fc.constant("retry" as const), client, key }),
  sweep: fc.record({ do: fc.constant("sweep" as const), client }),
};

export const operation: fc.Arbitrary<Operation> = fc.oneof(
  { arbitrary: make.enqueue, weight: 5 },
  { arbitrary: make.claim, weight: 6 },
  { arbitrary: make.settle, weight: 6 },
  { arbitrary: make.touch, weight: 2 },
  { arbitrary: make.notice, weight: 2 },
  { arbitrary: make.abort, weight: 2 },
  { arbitrary: make.retry, weight: 2 },
  { arbitrary: make.sweep, weight: 2 },
);

export const turn: fc.Arbitrary<Turn> = fc.oneof(
  fc.record({ do: fc.constant("kill" as const), client }),
  fc.record({ do: fc.constant("age" as const), key }),
  fc.record({ do: fc.constant("expire" as const), key }),
);

/**
 * Runs the operation and returns what happened to which job. Returns an empty list if it needs a claim and there is
 * none.
 */
export async function perform(stage: Stage, operation: Operation): Promise<Event[]> {
  switch (operation.do) {
    case "enqueue":
      return stage.enqueue(operation.client, operation.wish);
    case "claim":
      return stage.claim(operation.client, operation.limit, operation.grouped, operation.priorities);
    case "notice":
      return stage.notice(operation.client);
    case "sweep":
      return stage.sweep(operation.client);
    case "settle": {
      const held = heldAt(stage, operation.held);
      return held ? stage.settle(operation.client, held, operation.end) : [];
    }
    case "touch": {
      const held = heldAt(stage, operation.held);
      return held ? stage.touch(operation.client, held) : [];
    }
    case "abort":
    case "retry": {
      const keys = [...stage.keys(), "nobody"];
      return stage[operation.do](operation.client, keys[operation.key % keys.length] as string);
    }
  }
}

const heldAt = ({ held }: Stage, back: number): Held | undefined =>
  held.at(-1 - (back % Math.max(held.length, 1)));

export async function pass(stage: Stage, turn: Turn): Promise<void> {
  if (turn.do === "kill") return stage.kill(turn.client);
  const keys = stage.keys();
  const key = keys[turn.key % keys.length];
  const job = key === undefined ? undefined : stage.jobs.get(key);
  if (key === undefined || !job) return;
  if (turn.do === "age" && (job.status === "active" || job.status === "aborting")) {
    await stage.age(key);
    job.overdue = true;
  }
  if (turn.do === "expire" && ["complete", "failed", "aborted"].includes(job.status) && job.ttl > 0) {
    await stage.expire(key);
    // On Redis, its key is gone at once.
    job.expired = !onRedis;
  }
}

/**
 * Finds an order that explains the events, and copies what the rows say into the model. Throws if there is no such
 * order, or if two jobs of a group run at once.
 */
export async function verify(stage: Stage, events: readonly Event[]): Promise<void> {
  const rowOf = new Map((await stage.rows()).map((row) => [row.key, row]));
  for (const key of new Set([...stage.jobs.keys(), ...rowOf.keys(), ...events.map((event) => event.key)])) {
    const own = events.filter((event) => event.key === key);
    const row = rowOf.get(key);
    const found = explain(stage.jobs.get(key) ?? null, own, (after) => stage.difference(row, after));
    if ("why" in found) {
      const story = { before: stage.jobs.get(key) ?? null, events: own, row: row ?? null, why: found.why };
      throw new Error(`no order explains job ${key}: ${JSON.stringify(story, null, 1)}`);
    }
    if (found.after === null || !row) stage.jobs.delete(key);
    else {
      const scheduled = { from: row.scheduled, to: row.scheduled };
      const due = decodeJob(row.text, row.queue, found.after.status).scheduled;
      const asked = { from: due, to: due };
      // On Redis, a job that is due has no time of its own.
      const span = onRedis ? found.after.scheduled : scheduled;
      stage.jobs.set(key, { ...found.after, token: stage.tokenOf(row), scheduled: span, asked });
    }
  }
  const busy = new Map<string, string>();
  for (const [key, job] of stage.jobs) {
    const group = groupOf(job);
    if (group === null || (job.status !== "active" && job.status !== "aborting")) continue;
    const other = busy.get(group);
    if (other !== undefined) throw new Error(`group ${group} runs ${other} and ${key} at once`);
    busy.set(group, key);
  }
}

/**
 * Returns the keys that the operation must take if no other client is active, in order; undefined for other operations.
 */
export function expected(stage: Stage, operation: Operation): string[] | undefined {
  if (operation.do === "claim") return claimable(stage, operation);
  if (operation.do !== "sweep") return undefined;
  return [...stage.jobs]
    .filter(([, job]) => {
      if (job.expired) return true;
      if (job.status !== "active" && job.status !== "aborting") return false;
      return stage.isDead(job.workerId) || (job.overdue && job.timeout > 0);
    })
    .map(([key]) => key)
    .toSorted();
}

function claimable({ jobs }: Stage, { limit, grouped, priorities }: Operation & { do: "claim" }): string[] {
  const now = Date.now() / 1_000;
  const [lowest, highest] = priorities;
  const byPlace = ([, a]: [string, ModelJob], [, b]: [string, ModelJob]) =>
    a.priority - b.priority ||
    a.scheduled.from - b.scheduled.from ||
    Number(a.token ?? 0) - Number(b.token ?? 0);
  const busy = new Set(
    [...jobs.values()].filter((job) => job.status === "active" || job.status === "aborting").map(groupOf),
  );
  const taken = new Set<string>();
  return [...jobs]
    .filter(([, job]) => job.status === "queued" && (groupOf(job) !== null) === grouped)
    .filter(([, job]) => job.priority >= lowest && job.priority <= highest && job.scheduled.from <= now + 60)
    .toSorted(byPlace)
    .filter(([, job]) => {
      const group = groupOf(job);
      if (group === null) return true;
      if (busy.has(group) || taken.has(group)) return false;
      taken.add(group);
      return true;
    })
    .slice(0, limit)
    .map(([key]) => key);
}
