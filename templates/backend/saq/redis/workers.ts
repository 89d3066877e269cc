/** The info of workers, as SAQ stores it, and their leases, by which a dead worker is noticed. */
import type { WorkerRow, WorkerStats } from "../broker.js";
import type { RedisConnection } from "./connection.js";
import type { QueueKeys } from "./keys.js";
import { saveWorkerScript } from "./lua/workers.js";

export class Workers {
  constructor(
    private readonly connection: RedisConnection,
    private readonly keys: QueueKeys,
  ) {}

  async save(
    { workerId, stats, metadata, queueKey, graceSeconds }: WorkerRow,
    ttlSeconds: number,
  ): Promise<void> {
    const { keys, connection } = this;
    const info = JSON.stringify({ stats: { ...stats, graceSeconds }, queue_key: queueKey, metadata });
    const sentAt = performance.now();
    const time = await connection.run(
      saveWorkerScript,
      [keys.workerInfo(workerId), keys.stats, keys.leases],
      [info, String(ttlSeconds), workerId],
    );
    // Sent every few seconds, so that a step of the server's clock is noticed soon and at no extra cost.
    connection.clock.compareWith(Number(time), sentAt);
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

  /** Returns the ids of the workers whose lease expired more than `seconds` ago. */
  async expired(seconds: number): Promise<string[]> {
    const before = String(Math.floor(this.connection.clock.now() - seconds * 1_000));
    return (await this.connection.command(["ZRANGEBYSCORE", this.keys.leases, "0", before])) as string[];
  }

  /** Returns the ids of all workers with a lease, valid or not. */
  async withLease(): Promise<Set<string>> {
    return new Set((await this.connection.command(["ZRANGE", this.keys.leases, "0", "-1"])) as string[]);
  }

  async forget(workerIds: readonly string[]): Promise<void> {
    if (workerIds.length > 0) await this.connection.command(["ZREM", this.keys.leases, ...workerIds]);
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
