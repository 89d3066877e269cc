/** The real queues beside the model: brokers with connections of their own, and the operations on them. */

import { historyOf } from "../../../../templates/backend/saq/core/attempt-history.js";
import { defaultMaxBytes } from "../../../../templates/backend/saq/core/byte-size.js";
import type { ClaimedJob } from "../../../../templates/backend/saq/core/claim.js";
import type { Refusal } from "../../../../templates/backend/saq/core/new-job.js";
import { claimedFields } from "../../../../templates/backend/saq/core/stored-job.js";
import { decodeJob } from "../../../../templates/backend/saq/core/wire.js";
import { receiptOf as rowReceiptOf } from "../../../../templates/backend/saq/postgres/receipt.js";
import type { Queue } from "../../../../templates/backend/saq/queue/queue.js";
import { receiptOf as redisReceiptOf } from "../../../../templates/backend/saq/redis/receipt.js";
import { NoRetry } from "../../../../templates/backend/saq/tasks/no-retry.js";
import { Snooze } from "../../../../templates/backend/saq/tasks/snooze.js";
import type { Attempt } from "../../../../templates/backend/saq/worker/attempt/attempt.js";
import type { AttemptResult } from "../../../../templates/backend/saq/worker/settlement/settlement.js";
import { release, settlementOf } from "../../../../templates/backend/saq/worker/settlement/settlement.js";
import { pythonComplaints } from "../../support/golden-documents.js";
import { claimedText, type JobRow, settle, type TestDatabase } from "../../support/scenario.js";
import type { SteppedClock } from "../../support/stepped-clock.js";
import { onRedis, possible } from "../../support/test-broker.js";
import { type End, type Event, groupOf, lostLimit, type ModelJob, type Span, type Token } from "./model.js";

export type TestQueue = Queue<{ hello: (ctx: unknown, payload?: object) => string }>;

/** A claim that some process has made, whether it still owns its job or not. */
export interface Held {
  claim: ClaimedJob;
  workerId: string;
}

export interface Wish {
  key: string | null;
  retries: number;
  timeout: number;
  ttl: number;
  retryDelay: number;
  priority: number;
  group: string | null;
  /** Seconds from now; 0 = at once. */
  delay: number;
}

/** Returns what a claim knows of its row. On Redis, a job that is queued again has no token. */
function receiptOf(claim: ClaimedJob): { token: Token; place: Token | null } {
  if (onRedis) return { token: redisReceiptOf(claim).token, place: null };
  return rowReceiptOf(claim);
}

const limits = { graceSeconds: 5, lostLimit, checkInterval: 2, failedTtl: 600 };
const within = (second: number, { from, to }: Span) => second >= from && second <= to;
const second = (ms: number) => Math.floor(ms / 1_000);

export class Stage {
  readonly jobs = new Map<string, ModelJob>();
  readonly held: Held[] = [];
  readonly #dead = new Set<string>();
  readonly #workers: string[] = [];
  /** By worker: ends its sign that it is connected. Only on Redis. */
  readonly #disconnect = new Map<string, () => Promise<void>>();

  constructor(
    readonly database: TestDatabase,
    readonly clients: readonly TestQueue[],
    readonly clock: SteppedClock,
  ) {}

  async begin(): Promise<void> {
    if (onRedis) await this.database.redis().flushDb();
    else {
      await this.database.query("delete from saq_jobs");
      await this.database.query("delete from saq_stats");
    }
    for (const client of this.clients) this.#workers.push(await this.#newWorker(client));
  }

  async end(): Promise<void> {
    for (const disconnect of this.#disconnect.values()) await disconnect();
  }

  client(index: number): TestQueue {
    return this.clients[index % this.clients.length] as TestQueue;
  }

  keys(): string[] {
    return [...this.jobs.keys()].toSorted();
  }

  isDead(workerId: string | null): boolean {
    return workerId !== null && this.#dead.has(workerId);
  }

  async enqueue(index: number, wish: Wish): Promise<Event[]> {
    const { key, delay, ...wanted } = wish;
    const { priority = 0, groupKey: group = null } = possible({
      priority: wanted.priority,
      ...(wanted.group === null ? {} : { groupKey: wanted.group }),
    });
    const { group: _, ...given } = wanted;
    const options = { ...given, priority };
    const client = this.client(index);
    const before = client.broker.now();
    const due = delay === 0 ? 0 : second(before) + delay;
    const answer = await client.enqueueDetailed(
      "hello",
      {},
      {
        ...options,
        ...(key === null ? {} : { key }),
        ...(group === null ? {} : { groupKey: group }),
        ...(due === 0 ? {} : { scheduled: due }),
      },
    );
    const now = this.#since(client, before);
    const job: ModelJob = {
      ...options,
      group,
      status: "queued",
      attempts: 0,
      error: null,
      lost: 0,
      held: false,
      alive: false,
      cancellations: 0,
      snoozes: 0,
      failures: 0,
      token: null,
      workerId: null,
      scheduled: due === 0 ? now : { from: due, to: due },
      asked: { from: due, to: due },
      overdue: false,
      expired: false,
    };
    const answered: "stored" | Refusal = answer.enqueued ? "stored" : answer.reason;
    return [
      { kind: "enqueue", key: answer.enqueued ? answer.job.key : answer.key, now, job, answer: answered },
    ];
  }

  async claim(
    index: number,
    limit: number,
    grouped: boolean,
    priorities: readonly [number, number],
  ): Promise<Event[]> {
    const client = this.client(index);
    const workerId = this.#workers[index % this.clients.length] as string;
    const before = client.broker.now();
    const { jobs } = await client.broker.claim({ workerId, limit, grouped, priorities });
    const now = this.#since(client, before);
    return jobs.map((claim) => {
      this.held.push({ claim, workerId });
      if (onRedis) {
        const { token } = receiptOf(claim);
        const { attempts } = claimedFields(claim, { queueName: client.name, workerId });
        return { kind: "claim", key: claim.key, now, token, workerId, attempts };
      }
      const text = claimedText(claim);
      const { attempts, workerId: written, status } = decodeJob(text, client.name, "active");
      if (written !== workerId || status !== "active") throw new Error(`edited wrongly: ${text}`);
      return { kind: "claim", key: claim.key, now, token: receiptOf(claim).token, workerId, attempts };
    });
  }

  /** Settles with the worker's own code, whether the claim still owns its job or ended long ago. */
  async settle(index: number, { claim, workerId }: Held, end: End): Promise<Event[]> {
    const client = this.client(index);
    const before = client.broker.now();
    const fields = claimedFields(claim, { queueName: client.name, workerId });
    const attempt = { claim, fields, durationMs: 5 } as Attempt;
    const rules = { nowMs: before, failedTtl: limits.failedTtl, maxBytes: defaultMaxBytes };
    const settlement = end === "release" ? release(attempt) : settlementOf(attempt, ends[end], rules);
    if (!settlement) throw new Error(`nothing to write for ${end}`);
    const answer = await settle(client, settlement);
    const { key, due } = claim;
    const { token, place } = receiptOf(claim);
    return [
      {
        kind: "settle",
        key,
        now: this.#since(client, before),
        end,
        written: settlement.status,
        token,
        place,
        due,
        answer,
      },
    ];
  }

  /** A worker's check of the jobs that it runs: it ends the jobs that somebody aborted. */
  async notice(index: number): Promise<Event[]> {
    const client = this.client(index);
    const workerId = this.#workers[index % this.clients.length];
    const mine = this.held.filter((held) => held.workerId === workerId);
    const ended = await client.broker.findInterrupted(mine.map(({ claim }) => claim));
    const events: Event[] = [];
    for (const { key, reason } of ended) {
      const held = mine.findLast(({ claim }) => claim.key === key);
      if (held && reason === "abort") events.push(...(await this.settle(index, held, "aborted")));
    }
    return events;
  }

  async touch(index: number, { claim, workerId }: Held): Promise<Event[]> {
    const client = this.client(index);
    const before = client.broker.now();
    // Later than the start, as a worker's own heartbeat is.
    const touched = claimedFields(claim, { queueName: client.name, workerId }).started + 1;
    const patch = JSON.stringify({ progress: 0.5, touched });
    const [answer] = await client.broker.heartbeat([{ ...claim, patch, removed: ["result"] }]);
    const now = this.#since(client, before);
    return [{ kind: "touch", key: claim.key, now, token: receiptOf(claim).token, answer: answer === true }];
  }

  async abort(index: number, key: string): Promise<Event[]> {
    const client = this.client(index);
    const before = client.broker.now();
    const answer = await client.abort(key, "nope");
    return [{ kind: "abort", key, now: this.#since(client, before), answer }];
  }

  async retry(index: number, key: string): Promise<Event[]> {
    const client = this.client(index);
    const before = client.broker.now();
    const answer = await client.retry(key);
    return [{ kind: "retry", key, now: this.#since(client, before), answer }];
  }

  /** The process behind a client dies, and another one takes its place. */
  async kill(index: number): Promise<void> {
    const place = index % this.clients.length;
    const workerId = this.#workers[place] as string;
    this.#dead.add(workerId);
    if (onRedis) {
      await this.#disconnect.get(workerId)?.();
      this.#disconnect.delete(workerId);
      await this.database.stored.expireWorker(this.client(index).name, workerId);
    } else await this.#beat(this.client(index), workerId, -10);
    this.#workers[place] = await this.#newWorker(this.client(index));
  }

  /** Makes a running job look as if it began long ago. */
  async age(key: string): Promise<void> {
    await this.database.stored.edit(key, { members: { started: 5 } });
  }

  async expire(key: string): Promise<void> {
    if (onRedis) {
      const id = `saq:job:${this.client(0).name}:${key}`;
      await this.database.redis().del(id);
      this.jobs.delete(key);
    } else await this.database.query("update saq_jobs set expire_at = 5 where key = $1", [key]);
  }

  /**
   * Lets a sweeper reach the database for as long as it needs before it may judge workers. This moves the monotonic
   * clock, so no other client may be waiting by that clock. The sweeper takes over the jobs of dead workers.
   */
  async watch(index: number): Promise<Event[]> {
    const client = this.client(index);
    const before = client.broker.now();
    const lost: string[] = [];
    // A sweeper reads the document of a running job again after a minute. `age` has changed it in the table.
    this.clock.pass(61);
    for (let looks = 0; looks < 7; looks++) {
      this.clock.pass(2);
      if (onRedis) await this.#measureClocks();
      lost.push(...(await client.broker.sweepLost(limits)));
    }
    for (const { broker } of this.clients) await clockIsRight(broker);
    const now = this.#since(client, before);
    return lost.map((key) => ({ kind: "lose", key, now }));
  }

  /** Takes over the jobs of dead workers, ends stuck jobs and deletes expired rows. */
  async sweep(index: number): Promise<Event[]> {
    const client = this.client(index);
    const { broker } = client;
    // On Redis, one process sweeps for some seconds; the test does not wait for the next turn.
    if (onRedis) await this.database.redis().del(`saq:${client.name}:ts:sweep`);
    const before = broker.now();
    const lost = await broker.sweepLost(limits);
    const stuck = await broker.sweepStuck(limits);
    const now = this.#since(client, before);
    const there = new Set((await this.rows()).map(({ key }) => key));
    const expired = this.keys().filter((key) => this.jobs.get(key)?.expired);
    return [
      ...lost.map((key): Event => ({ kind: "lose", key, now })),
      ...stuck.map((key): Event => ({ kind: "sweep", key, now })),
      ...expired.map((key): Event => ({ kind: "expire", key, now, gone: !there.has(key) })),
    ];
  }

  rows(): Promise<JobRow[]> {
    return this.database.stored.rows(this.client(0).name);
  }

  /** The token of a row. */
  tokenOf(row: JobRow): Token | null {
    return onRedis ? ((row.token as string | null) ?? null) : row.lock_key;
  }

  /** Returns what differs between a row and the model's job; null if nothing differs. */
  difference(row: JobRow | undefined, job: ModelJob | null): string | null {
    if (!row || !job)
      return row || job ? `the row is ${row?.status ?? "gone"}, not ${job?.status ?? "gone"}` : null;
    const complaints = pythonComplaints(row.text, row.queue);
    if (complaints.length > 0) return complaints.join(", ");
    const fields = decodeJob(row.text, row.queue, job.status);
    const isOver = job.status === "complete" || job.status === "failed" || job.status === "aborted";
    const pairs: [string, unknown, unknown][] = [
      ["status", row.status, job.status],
      ["the document's status", JSON.parse(row.text).status, job.status],
      ["attempts", fields.attempts, job.attempts],
      ["error", fields.error?.match(/boom/)?.[0] ?? fields.error, job.error],
      ["meta.lost", fields.meta.lost ?? 0, job.lost],
      ["meta.cancellations", fields.meta.cancellations ?? 0, job.cancellations],
      ["meta.snoozes", fields.meta.snoozes ?? 0, job.snoozes],
      ["length of the history", historyOf(fields).length, Math.min(job.failures, 10)],
      ["token", this.tokenOf(row), this.#expectedToken(row, job)],
      ["group", row.group_key, groupOf(job)],
      ["priority", row.priority, job.priority],
      ["scheduled", this.#isPlaced(row, job), true],
      ["the document's due time", within(fields.scheduled, job.asked), true],
      ["kept for ever", row.expire_at === null, !isOver || job.ttl === 0],
      ["result", fields.result, job.status === "complete" ? "done" : null],
      ["completed", fields.completed > 0, isOver],
    ];
    const wrong = pairs.find(([, is, should]) => is !== should);
    return wrong ? `${wrong[0]} is ${String(wrong[1])}, not ${String(wrong[2])}` : null;
  }

  #expectedToken(row: JobRow, job: ModelJob): Token | null {
    if (!onRedis) return job.token ?? row.lock_key;
    // Python and ours must find the job free: a claim ends with its token.
    return job.status === "active" || job.status === "aborting" ? job.token : null;
  }

  /** True if the row is due when the model says so. On Redis, a job also has to be in the right list, once. */
  #isPlaced(row: JobRow, job: ModelJob): boolean {
    if (!onRedis) return within(row.scheduled, job.scheduled);
    const isDelayed = row.scheduled > 0;
    const place =
      job.status === "queued" && !isDelayed ? "queued" : job.status === "active" ? "active" : "in no list";
    return (
      row.place === place && (job.status !== "queued" || !isDelayed || within(row.scheduled, job.scheduled))
    );
  }

  /** Each worker's sign of life measures the server's clock anew. */
  async #measureClocks(): Promise<void> {
    for (const [index, client] of this.clients.entries())
      await this.#beat(client, this.#workers[index] as string, 100_000);
  }

  #since(client: TestQueue, before: number): Span {
    // The offset to the database's clock is measured, so it is not exact.
    return { from: second(before - 100), to: second(client.broker.now() + 100) };
  }

  async #newWorker(client: TestQueue): Promise<string> {
    const workerId = client.broker.newWorkerId();
    await this.#beat(client, workerId, 100_000);
    if (onRedis) this.#disconnect.set(workerId, await client.broker.holdLiveness(workerId));
    return workerId;
  }

  #beat(client: TestQueue, workerId: string, ttl: number): Promise<void> {
    const stats = { complete: 0, failed: 0, retried: 0, aborted: 0, uptime: 0 };
    return client.broker.saveWorker({ workerId, stats, metadata: null, queueKey: client.name }, ttl);
  }
}

const boom = Object.assign(new Error("boom"), { stack: "Error: boom" });
const forGood = Object.assign(new NoRetry("boom"), { stack: "NoRetry: boom" });
const ends: Record<Exclude<End, "release">, AttemptResult> = {
  complete: { kind: "returned", value: "done" },
  threw: { kind: "threw", error: boom },
  "gave up": { kind: "threw", error: forGood },
  snoozed: { kind: "snoozed", snooze: new Snooze(0) },
  shutdown: { kind: "interrupted", interruption: "shutdown", reason: boom, overdue: false },
  aborted: { kind: "interrupted", interruption: "abort", reason: boom, overdue: false },
};

/**
 * Waits until the offset to the database's clock is measured again. It was wrong, because the monotonic clock was moved
 * and the wall clock was not.
 */
async function clockIsRight(broker: { now(): number }): Promise<void> {
  while (Math.abs(broker.now() - Date.now()) > 500) await new Promise((resolve) => setTimeout(resolve, 5));
}
