/** Administration of queues with SAQ's keys on Redis, for engine.js and saq.js. */
import { redisCpuUs } from "../server-cpu.js";

const queue = "saq:default:";

/** `hasFinished`: finished jobs are in a sorted set, as the engine stores them. */
export async function admin(url, { hasFinished = true } = {}) {
  // Only where this contestant takes part: it is installed in bench/ alone.
  const { default: Redis } = await import("ioredis");
  const client = new Redis(url);
  const fill = async (kind, count) => {
    if (kind === "finished" && !hasFinished) return false;
    const seconds = Math.floor(Date.now() / 1_000);
    const prefix = kind === "failed" ? "failed" : "filled";
    for (let from = 0; from < count; from += 1_000) {
      const commands = client.pipeline();
      for (let i = from; i < Math.min(from + 1_000, count); i++) {
        const id = `saq:job:default:${prefix}${i}`;
        const members = {
          function: "noop",
          kwargs: { i },
          queue: "default",
          key: `${prefix}${i}`,
          queued: seconds * 1_000,
        };
        if (kind === "finished") {
          commands.set(
            id,
            JSON.stringify({ ...members, attempts: 1, result: { ok: 1 }, status: "complete" }),
          );
          commands.zadd(`${queue}ts:complete`, "+inf", id);
        } else if (kind === "failed") {
          const times = { started: members.queued, completed: members.queued, touched: members.queued };
          const error = "Error: connect ECONNREFUSED ".repeat(36);
          commands.set(
            id,
            JSON.stringify({ ...members, attempts: 1, worker_id: "filled", ...times, error, status: "failed" }),
          );
          commands.zadd(`${queue}ts:failed`, "+inf", id);
        } else if (kind === "future") {
          const due = seconds + 30 * 24 * 3_600;
          commands.set(id, JSON.stringify({ ...members, scheduled: due, status: "queued" }));
          commands.zadd(`${queue}incomplete`, due, id);
        } else {
          commands.set(id, JSON.stringify({ ...members, status: "queued" }));
          commands.zadd(`${queue}incomplete`, 0, id);
          commands.rpush(`${queue}queued`, id);
        }
      }
      await commands.exec();
    }
    return true;
  };
  return {
    client: null,
    close: async () => client.disconnect(),
    empty: () => client.flushdb(),
    // The jobs of the last fill cannot be told apart cheaply; the database is filled anew.
    trim: async () => false,
    settle: async () => {},
    unfinished: async () =>
      (await client.llen(`${queue}queued`)) > 0 || (await client.llen(`${queue}active`)) > 0,
    // Jobs of `fill` are kept for ever, all others for a time.
    finished: async () => (hasFinished ? client.zcount(`${queue}ts:complete`, "-inf", "(+inf") : null),
    serverCpuUs: () => redisCpuUs(client),
    // While a script runs, the server does nothing else: a ping takes as long.
    watchLocks: () => {
      let isOver = false;
      let longest = 0;
      const watching = (async () => {
        while (!isOver) {
          const start = performance.now();
          await client.ping();
          longest = Math.max(longest, performance.now() - start);
        }
      })();
      return async () => {
        isOver = true;
        await watching;
        return longest;
      };
    },
    fill,
  };
}
