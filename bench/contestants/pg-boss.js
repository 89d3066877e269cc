/**
 * pg-boss. Default, as its documentation first shows it: one job per poll, one poll every 2 s. Tuned: LISTEN/NOTIFY,
 * batches of jobs that end with one statement, and the next batch immediately after a full batch. pg-boss sends no
 * notification when a job ends, so a round trip polls for the result every 5 ms.
 */
import { PgBoss } from "pg-boss";
import { sleep } from "../clock.js";
import { connectAdmin, copyRow } from "./postgres-admin.js";
import { versionOf } from "./versions.js";

const queue = "noop";
const bulk = 5_000;
const pollMs = 5;

async function open(url, options) {
  const boss = new PgBoss({ connectionString: url, ...options });
  boss.on("error", console.error);
  await boss.start();
  return { boss, close: () => boss.stop({ graceful: false, close: true, timeout: 1_000 }) };
}

/** Returns the options of an instance that has a worker. */
const workerOptions = (tuned) => ({
  max: 20,
  migrate: false,
  ...(tuned ? { useListenNotify: true } : {}),
});

async function startWork(boss, { tuned, concurrency, best, handler }) {
  if (tuned) {
    await boss.work(
      queue,
      {
        batchSize: best ? 1_000 : concurrency,
        ...(best ? { localConcurrency: 2 } : {}),
        burstWhenBatchFull: true,
        pollingIntervalSeconds: 0.5,
      },
      async (jobs) => {
        // pg-boss stores one result for the whole batch. For jobs that do nothing, the result of the first job is
        // enough.
        const [first] = await Promise.all(jobs.map((job) => handler(job.data)));
        return first;
      },
    );
  } else {
    await boss.work(queue, { localConcurrency: concurrency }, async ([job]) => handler(job.data));
  }
}

export const contestant = ({ tuned }) => ({
  version: versionOf("pg-boss"),

  async install(url) {
    const { boss, close } = await open(url, { supervise: false, schedule: false });
    await boss.createQueue(queue, { notify: tuned });
    await close();
  },

  async producer(url, options) {
    const { boss, close } = await open(
      url,
      options ? workerOptions(tuned) : { max: 20, supervise: false, schedule: false, migrate: false },
    );
    return {
      enqueue: (payload) => boss.send(queue, payload),
      enqueueMany: async (payloads) => {
        for (let from = 0; from < payloads.length; from += bulk) {
          const entries = payloads.slice(from, from + bulk);
          await boss.insert(
            queue,
            entries.map((data) => ({ data })),
          );
        }
      },
      roundTrip: async (payload) => {
        const id = await boss.send(queue, payload);
        for (;;) {
          const job = await boss.getJobById(queue, id);
          if (job?.state === "completed") return job.output;
          await sleep(pollMs);
        }
      },
      // The count of pg-boss's API is not used, because it may be up to a minute old.
      incomplete: async () => {
        const { rows } = await boss
          .getDb()
          .executeSql(
            "select count(*)::int as count from pgboss.job where name = $1 and state < 'completed'",
            [queue],
          );
        return rows[0].count;
      },
      work: async () => {
        await startWork(boss, { tuned, ...options });
        return { stop: async () => {} };
      },
      stop: close,
    };
  },

  async worker(url, options) {
    const { boss, close } = await open(url, workerOptions(tuned));
    await startWork(boss, { tuned, ...options });
    return { stop: close };
  },

  async admin(url) {
    const { client, one, close } = await connectAdmin(url);
    const tables = async () =>
      (
        await client.query(
          `select c.oid::regclass::text as name from pg_class c
           where c.relnamespace = 'pgboss'::regnamespace and c.relkind = 'r'
             and exists (select 1 from pg_attribute a where a.attrelid = c.oid and a.attname = 'start_after')`,
        )
      ).rows.map((row) => row.name);
    return {
      client,
      close,
      empty: async () => {
        for (const table of await tables()) await client.query(`truncate ${table} cascade`);
      },
      settle: async () => {
        for (const table of await tables()) await client.query(`vacuum analyze ${table}`);
      },
      unfinished: async () =>
        (
          await one(
            `select exists (select 1 from pgboss.job where name = $1 and state < 'completed' and start_after <= now())
               as found`,
            [queue],
          )
        ).found,
      finished: async () =>
        (
          await one(
            "select count(*)::int as count from pgboss.job where name = $1 and completed_on > 'epoch'",
            [queue],
          )
        ).count,
      trim: async () => {
        await client.query(
          `delete from pgboss.job where name = $1 and completed_on is distinct from 'epoch'
             and start_after < now() + interval '1 day'`,
          [queue],
        );
        return true;
      },
      demote: () =>
        client.query("update pgboss.job set priority = -5 where state = 'created' and start_after <= now()"),
      fill: async (kind, count) => {
        const { boss, close: closeBoss } = await open(url, {
          supervise: false,
          schedule: false,
          migrate: false,
        });
        const id = await boss.send(queue, { i: 0 });
        await closeBoss();
        await copyRow(client, {
          schema: "pgboss",
          table: "job",
          where: `id = '${id}'`,
          columns: {
            id: "gen_random_uuid()",
            ...(kind === "finished"
              ? { state: "'completed'", started_on: "now()", completed_on: "'epoch'" }
              : kind === "future"
                ? { start_after: "now() + interval '30 days'" }
                : {}),
          },
          count,
        });
        await client.query("delete from pgboss.job where name = $1 and id = $2", [queue, id]);
        return true;
      },
    };
  },
});
