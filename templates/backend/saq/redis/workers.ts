/**
 * The info of workers, as SAQ stores it, and how others see that a worker is dead.
 *
 * A worker renews its lease every 3 s, and is subscribed to a channel of its own. When its process is killed, the
 * server notices at once that the connection is closed. Other workers look at both, because each alone proves too
 * little: a worker that lives may be without a connection for a moment, and a process that was paused, or whose machine
 * has disappeared, keeps its connection. So there are two limits. The times are those of the default timers and of the
 * default `cancellationHardDeadline` (1 s), counted from the last heartbeat. A longer deadline delays only the
 * takeover.
 *
 * - A worker that cannot reach the server interrupts its jobs after 6.75 s, and they have ended 3 s later. Others take
 *   over the jobs of a worker without a connection after 9.75 s. These are the jobs of a killed process: others look
 *   every 2 s, so they run again about 7 to 12 s after its death.
 *   While the server is down, a worker interrupts none, because nobody takes over jobs then: with Sentinels and on a
 *   cluster, both ask the Sentinels or the other masters.
 * - A worker with a connection interrupts its jobs after 12.75 s. Others take over its jobs after 17.75 s, so that a
 *   task that blocks the event loop for 14 s costs nothing.
 */
import type { WorkerRow, WorkerStats } from "../broker.js";
import type { RedisConnection } from "./connection.js";
import { isNotPermitted, isUnavailable } from "./errors.js";
import type { QueueKeys } from "./keys.js";
import { forgetLeasesScript, renewLeaseScript, saveWorkerScript } from "./lua/workers.js";
import type { StoredPauses } from "./pauses.js";

/** Shorter intervals of the heartbeat do not shorten the limit below this, s: a heartbeat may take a moment. */
const minCutOffSeconds = 4;
/** How much longer a worker may wait for a heartbeat while it has a connection, s. */
const connectedSeconds = 6;
/**
 * How much longer others wait before they take over the jobs of a worker with a connection, s. More than
 * `connectedSeconds`.
 */
const pausedSeconds = 8;

/**
 * How old the last heartbeat of a worker may be when it has to end its jobs, s. `ttlSeconds`: how long a heartbeat is
 * valid.
 */
export const maxHeartbeatAge = (ttlSeconds: number, isConnected: boolean): number =>
  Math.max(ttlSeconds * 0.75, minCutOffSeconds) + (isConnected ? connectedSeconds : 0);

/** The lease of one worker. */
export interface Lease {
  workerId: string;
  /** Its score as it was read. */
  score: string;
  /** Since when others may take over the jobs if the worker has no connection, s; negative: not yet. */
  overdue: number;
}

export class Workers {
  constructor(
    private readonly connection: RedisConnection,
    private readonly keys: QueueKeys,
  ) {}

  /** Returns the pauses of the queue; null if the server refused to store the info. */
  async save(
    { workerId, stats, metadata, queueKey, graceSeconds }: WorkerRow,
    ttlSeconds: number,
  ): Promise<StoredPauses | null> {
    const { keys, connection } = this;
    const info = JSON.stringify({ stats: { ...stats, graceSeconds }, queue_key: queueKey, metadata });
    // A worker that cannot renew its lease has ended its jobs by then: `graceSeconds` contains the hard deadline.
    const keptSeconds = maxHeartbeatAge(ttlSeconds, false) + (graceSeconds ?? 0);
    const sentAt = performance.now();
    const kept = String(Math.ceil(keptSeconds * 1_000));
    const time = await connection.run(renewLeaseScript, [keys.leases], [workerId, kept]);
    // Sent every few seconds, so that a step of the server's clock is noticed soon and at no extra cost.
    connection.clock.compareWith(Number(time), sentAt);
    const saved = [keys.workerInfo(workerId), keys.stats, keys.pauses, keys.parkedTasks];
    const args = [info, String(ttlSeconds)];
    try {
      return (await connection.run(saveWorkerScript, saved, args, { timeoutMs: 0 })) as StoredPauses;
    } catch (error) {
      // The lease is what counts. While a cluster moves the queue's keys, it is renewed and this is refused.
      if (!isUnavailable((Object(error) as { cause?: unknown }).cause)) throw error;
      return null;
    }
  }

  async remove(workerId: string): Promise<void> {
    const info = this.keys.workerInfo(workerId);
    await this.connection.command(["ZREM", this.keys.stats, info]);
    await this.connection.command(["ZREM", this.keys.leases, workerId]);
    await this.connection.command(["DEL", info]);
  }

  /** Returns the workers whose info is valid, Python's too. */
  async list(): Promise<WorkerRow[]> {
    const now = String(Math.floor(this.connection.clock.now()));
    const infos = (await this.connection.command([
      "ZRANGEBYSCORE",
      this.keys.stats,
      now,
      "+inf",
    ])) as string[];
    if (infos.length === 0) return [];
    const texts = (await this.connection.command(["MGET", ...infos])) as (string | null)[];
    return texts.flatMap((text, index) => {
      const workerId = infos[index]?.slice(this.keys.workerInfo("").length);
      const row = text === null ? null : parseInfo(text);
      return row && workerId !== undefined ? [{ workerId, ...row }] : [];
    });
  }

  /** Shows others that the worker is connected. Returns a function that ends this. */
  hold(workerId: string): Promise<() => Promise<void>> {
    const ignore = () => {};
    return this.connection.subscribe(this.keys.connected(workerId), ignore, ignore);
  }

  /** Returns the leases that end within `seconds`, or have ended. */
  async ending(seconds: number): Promise<Lease[]> {
    const now = this.connection.clock.now();
    const until = String(Math.floor(now + seconds * 1_000));
    const range = ["ZRANGEBYSCORE", this.keys.leases, "0", until, "WITHSCORES"];
    const flat = (await this.connection.command(range)) as string[];
    const leases: Lease[] = [];
    for (let index = 0; index < flat.length; index += 2) {
      const [workerId = "", score = ""] = flat.slice(index, index + 2);
      leases.push({ workerId, score, overdue: (now - Number(score)) / 1_000 });
    }
    return leases;
  }

  /** Returns those of the leases whose workers are dead. */
  async dead(leases: readonly Lease[]): Promise<Lease[]> {
    const over = leases.filter(({ overdue }) => overdue >= 0);
    if (over.length === 0) return [];
    const connected = await this.#connected(over.map(({ workerId }) => workerId));
    return over.filter(({ workerId, overdue }) => overdue >= pausedSeconds || !connected.has(workerId));
  }

  /** Returns the ids of all workers with a lease, valid or not (`known`), and of those without a connection. */
  async all(): Promise<{ known: Set<string>; disconnected: Set<string> }> {
    const ids = (await this.connection.command(["ZRANGE", this.keys.leases, "0", "-1"])) as string[];
    const connected = ids.length === 0 ? new Set() : await this.#connected(ids);
    return { known: new Set(ids), disconnected: new Set(ids.filter((id) => !connected.has(id))) };
  }

  /** Returns those of the workers that are connected. All of them, if the user of the DSN may not ask for that. */
  async #connected(workerIds: readonly string[]): Promise<Set<string>> {
    try {
      const channels = workerIds.map((workerId) => this.keys.connected(workerId));
      const flat = (await this.connection.command(["PUBSUB", "NUMSUB", ...channels])) as unknown[];
      return new Set(workerIds.filter((_, index) => Number(flat[2 * index + 1]) > 0));
    } catch (error) {
      if (isNotPermitted(error)) return new Set(workerIds);
      throw error;
    }
  }

  /** Removes leases, unless their workers have renewed them. */
  async forget(leases: readonly Lease[]): Promise<void> {
    if (leases.length === 0) return;
    const read = leases.flatMap(({ workerId, score }) => [workerId, score]);
    await this.connection.run(forgetLeasesScript, [this.keys.leases], read);
  }
}

function parseInfo(text: string): Omit<WorkerRow, "workerId"> | null {
  try {
    const {
      stats,
      queue_key: queueKey,
      metadata,
    } = JSON.parse(text) as {
      stats: WorkerStats & { graceSeconds?: unknown };
      queue_key: string;
      metadata: Record<string, unknown> | null;
    };
    const { graceSeconds: _, ...shown } = stats;
    return { stats: shown, metadata: metadata ?? null, queueKey };
  } catch {
    return null;
  }
}
