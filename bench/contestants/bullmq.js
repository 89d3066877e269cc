/**
 * BullMQ, on its PostgreSQL backend or on Redis. In its usual configuration Redis writes nothing to disk before it
 * responds. Its figures stand next to those of durable contestants, but they mean less.
 */
import { createPostgresBackend, Queue, QueueEvents, runMigrations, Worker } from "bullmq";
import Redis from "ioredis";
import { redisCpuUs } from "../server-cpu.js";
import { connectAdmin, copyRow } from "./postgres-admin.js";
import { versionOf } from "./versions.js";

const name = "noop";
const bulk = 5_000;
const waitMs = 5_000;
/** Found by experiment: neither backend is faster with a higher concurrency. */
const bestConcurrency = { postgres: 20, redis: 300 };

export function contestant({ redis }) {
  const backend = redis ? [] : [createPostgresBackend];
  const connectionOf = (url) => {
    if (!redis) return { connectionString: url, max: 20 };
    const { hostname, port, pathname } = new URL(url);
    return {
      host: hostname,
      port: Number(port || 6379),
      db: Number(pathname.slice(1) || 0),
      maxRetriesPerRequest: null,
    };
  };
  const openQueue = async (url) => {
    const queue = new Queue(
      name,
      { connection: connectionOf(url), defaultJobOptions: { removeOnComplete: false } },
      ...backend,
    );
    queue.on("error", console.error);
    // Without this, BullMQ warns if more than ten calls are in progress.
    queue.setMaxListeners(0);
    await queue.waitUntilReady();
    return queue;
  };

  return {
    version: versionOf("bullmq"),
    ...(redis ? { redisDatabase: 0 } : {}),

    async install(url) {
      if (redis) return;
      const { client, close } = await connectAdmin(url);
      await runMigrations(client, "bullmq");
      await close();
    },

    async producer(url) {
      const queue = await openQueue(url);
      let events;
      const listen = async () => {
        const made = new QueueEvents(name, { connection: connectionOf(url) }, ...backend);
        made.setMaxListeners(0);
        await made.waitUntilReady();
        return made;
      };
      return {
        enqueue: (payload) => queue.add("noop", payload),
        enqueueMany: async (payloads) => {
          for (let from = 0; from < payloads.length; from += bulk) {
            await queue.addBulk(payloads.slice(from, from + bulk).map((data) => ({ name: "noop", data })));
          }
        },
        roundTrip: async (payload) => {
          events ??= listen();
          const listening = await events;
          const job = await queue.add("noop", payload);
          // On PostgreSQL, some finish events never arrive if many calls are in progress. Their wait is in the figure.
          return job.waitUntilFinished(listening, waitMs).catch((error) => {
            if (!/timed out/.test(error.message)) throw error;
            return null;
          });
        },
        incomplete: () => queue.getJobCountByTypes("waiting", "active", "delayed", "prioritized"),
        stop: async () => {
          await (await events)?.close();
          await queue.close();
        },
      };
    },

    async worker(url, { concurrency, best, handler }) {
      const worker = new Worker(
        name,
        async (job) => handler(job.data),
        {
          connection: connectionOf(url),
          concurrency: best ? bestConcurrency[redis ? "redis" : "postgres"] : concurrency,
        },
        ...backend,
      );
      worker.on("error", console.error);
      await worker.waitUntilReady();
      return { stop: () => worker.close(true) };
    },

    admin: redis ? redisAdmin : postgresAdmin,
  };

  async function redisAdmin(url) {
    const queue = await openQueue(url);
    const client = new Redis(url);
    const counted = async (...states) =>
      Object.values(await queue.getJobCounts(...states)).reduce((sum, count) => sum + count, 0);
    return {
      client: null,
      close: async () => {
        await queue.close();
        client.disconnect();
      },
      empty: async () => {
        await client.flushdb();
        await queue.waitUntilReady();
      },
      // Jobs that a stopped worker has left active cannot be deleted by themselves; the result is then false.
      trim: async () => {
        await queue.drain();
        await queue.clean(0, 0, "completed");
        return (await counted("waiting", "active", "completed")) === 0;
      },
      settle: async () => {},
      serverCpuUs: () => redisCpuUs(client),
      unfinished: async () => (await counted("waiting", "active", "prioritized")) > 0,
      finished: () => counted("completed"),
      fill: async (kind, count) => {
        if (kind === "finished") return false;
        const delay = kind === "future" ? 30 * 24 * 3_600_000 : 0;
        for (let from = 0; from < count; from += bulk) {
          const size = Math.min(bulk, count - from);
          await queue.addBulk(
            Array.from({ length: size }, (_, i) => ({
              name: "noop",
              data: { i: from + i },
              opts: { delay },
            })),
          );
        }
        return true;
      },
    };
  }

  async function postgresAdmin(url) {
    const { client, one, close } = await connectAdmin(url);
    const tablesBut = async (...left) =>
      (
        await one(
          `select string_agg(format('%I.%I', schemaname, tablename), ', ') as tables from pg_tables
           where schemaname = 'bullmq' and tablename <> all($1)`,
          [left],
        )
      ).tables;
    return {
      client,
      close,
      empty: async () => {
        await client.query(`truncate ${await tablesBut("migration", "meta")}`);
      },
      trim: async () => {
        await client.query(`truncate ${await tablesBut("migration", "meta", "job")}`);
        await client.query("delete from bullmq.job where id not like 'filled%'");
        return true;
      },
      settle: () => client.query("vacuum analyze"),
      unfinished: async () =>
        (await one("select exists (select 1 from bullmq.job where state in ('waiting', 'active')) as found"))
          .found,
      finished: async () =>
        (
          await one(
            "select count(*)::int as count from bullmq.job where state = 'completed' and id not like 'filled%'",
          )
        ).count,
      fill: async (kind, count) => {
        const queue = await openQueue(url);
        const { id } = await queue.add("noop", { i: 0 });
        await queue.close();
        await copyRow(client, {
          schema: "bullmq",
          table: "job",
          where: `id = '${id}'`,
          columns: {
            id: "'filled' || g",
            seq: "nextval('bullmq.job_seq')",
            ...(kind === "finished"
              ? {
                  state: "'completed'",
                  processed_at_ms: "t.added_at_ms",
                  finished_at_ms: "t.added_at_ms",
                  return_value: `'{"ok": 1}'`,
                }
              : kind === "future"
                ? { state: "'delayed'", delay_ms: "2592000000", process_at_ms: "t.added_at_ms + 2592000000" }
                : {}),
          },
          count,
        });
        await client.query("delete from bullmq.job where id = $1", [id]);
        return true;
      },
    };
  }
}
