/**
 * graphile-worker. Default: only `concurrentJobs` is set, and `maxPoolSize` to match it. Tuned: the settings of its
 * documentation's performance test, which are a local queue of 500 and completions in batches without delay. Best: 100
 * jobs run at the same time, and the local queue holds 2,000. With 4,000 and 8,000 it drains 20,000 jobs from its start
 * no faster (1.01 and 0.91 times); with 1,000 it drains a backlog of 80,000 at 0.7 times the rate. A delay before the
 * next fetch gained nothing. graphile-worker deletes finished jobs and keeps no results.
 */
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";
import { connectAdmin, copyRow } from "./postgres-admin.js";
import { transactionsOf } from "./transactions.js";
import { versionOf } from "./versions.js";

const jobs = "graphile_worker._private_jobs";
const queues = "graphile_worker._private_job_queues";
const bulk = 10_000;
const logger = new Logger(() => (level, message) => {
  if (level === "error") console.error(message);
});

/** Starts a worker. `connections` contains an address (`connectionString`) or a pool to share (`pgPool`). */
async function start(connections, { tuned, concurrency, best, handler }) {
  const jobsAtOnce = best && tuned ? 100 : concurrency;
  const runner = await run({
    ...connections,
    preset: {
      worker: {
        concurrentJobs: jobsAtOnce,
        maxPoolSize: jobsAtOnce + 2,
        logger,
        ...(tuned
          ? {
              localQueue: { size: best ? 2_000 : 500 },
              completeJobBatchDelay: 0,
              failJobBatchDelay: 0,
            }
          : {}),
      },
    },
    noHandleSignals: true,
    taskList: { noop: (payload) => handler(payload) },
    parsedCronItems: [],
  });
  return { stop: () => runner.stop() };
}

export const contestant = ({ tuned }) => ({
  version: versionOf("graphile-worker"),
  hasGroups: true,
  deletesJobs: true,
  hasTransactions: true,

  async install(url) {
    const utils = await makeWorkerUtils({ connectionString: url, logger });
    await utils.migrate();
    await utils.release();
  },

  async producer(url, options) {
    const pool = new pg.Pool({ connectionString: url, max: 20 });
    // Without these handlers, graphile-worker warns about the pool.
    pool.on("error", console.error);
    pool.on("connect", (client) => client.on("error", console.error));
    const utils = await makeWorkerUtils({ pgPool: pool, logger });
    return {
      enqueue: (payload) => utils.addJob("noop", payload),
      enqueueMany: async (payloads) => {
        for (let from = 0; from < payloads.length; from += bulk) {
          const entries = payloads.slice(from, from + bulk);
          await utils.addJobs(entries.map((payload) => ({ identifier: "noop", payload })));
        }
      },
      incomplete: async () => {
        const { rows } = await pool.query("select count(*)::int as count from graphile_worker.jobs");
        return rows[0].count;
      },
      work: () => start({ pgPool: pool }, { tuned, ...options }),
      stop: async () => {
        await utils.release();
        await pool.end();
      },
    };
  },

  async worker(url, { inTransaction, handler, ...options }) {
    const transactions = inTransaction ? transactionsOf(url, options.concurrency) : null;
    const run = transactions
      ? (payload) =>
          transactions.run(async (client) => {
            await client.query("select 1");
            return handler(payload);
          })
      : handler;
    const worker = await start({ connectionString: url }, { tuned, ...options, handler: run });
    return {
      stop: async () => {
        await worker.stop();
        await transactions?.close();
      },
    };
  },

  async admin(url) {
    const { client, one, close } = await connectAdmin(url);
    return {
      client,
      close,
      empty: () => client.query(`truncate ${jobs}, ${queues}`),
      settle: () => client.query(`vacuum analyze ${jobs}`),
      unfinished: async ({ ungrouped = false } = {}) =>
        (
          await one(
            `select exists (select 1 from ${jobs} where run_at <= now() and (job_queue_id is null or not $1)) as found`,
            [ungrouped],
          )
        ).found,
      finished: async () => null,
      trim: async () => {
        await client.query(`delete from ${jobs} where run_at < now() + interval '1 day'`);
        return true;
      },
      demote: () => client.query(`update ${jobs} set priority = 5 where run_at <= now()`),
      fill: async (kind, count, { groups = 0 } = {}) => {
        if (kind === "finished") return false;
        await client.query(
          `insert into ${queues} (queue_name) select 'group' || g from generate_series(0, $1::int - 1) g`,
          [groups],
        );
        await client.query("select graphile_worker.add_job('noop', '{\"i\": 0}')");
        await copyRow(client, {
          schema: "graphile_worker",
          table: "_private_jobs",
          where: "true",
          left: ["id"],
          columns: {
            ...(kind === "future" ? { run_at: "now() + interval '30 days'" } : {}),
            ...(groups > 0
              ? { job_queue_id: `(select id from ${queues} where queue_name = 'group' || g % ${groups})` }
              : {}),
          },
          count,
        });
        await client.query(`delete from ${jobs} where id = (select min(id) from ${jobs})`);
        return true;
      },
      holdGroups: () =>
        client.query(
          `with held as (update ${queues} set locked_at = now(), locked_by = 'somebody' returning id)
           update ${jobs} set locked_at = now(), locked_by = 'somebody'
           where id in (select min(j.id) from ${jobs} j join held on held.id = j.job_queue_id group by held.id)`,
        ),
    };
  },
});
