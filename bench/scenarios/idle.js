// Measures the cost of a worker that has nothing to do.
import fs from "node:fs";
import { sleep } from "../clock.js";
import { cpuBetween, serverCpuUs } from "../server-cpu.js";

const settleMs = 5_000;
const lookMs = 20_000;
const mebibyte = 2 ** 20;

async function idle(contender) {
  await contender.fresh();
  const worker = await contender.worker();
  try {
    await worker.call("work", { concurrency: contender.options.concurrency, expected: 1 });
    await sleep(settleMs);
    return await contender.administer(async ({ client }) => {
      const before = await look(worker, client);
      await sleep(lookMs);
      const after = await look(worker, client);
      const seconds = lookMs / 1_000;
      const serverUs = cpuBetween(before.serverUs, after.serverUs);
      return {
        "idle, worker CPU": (after.cpuUs - before.cpuUs) / 1_000 / seconds,
        "idle, worker memory": memoryOf(worker.pid) / mebibyte,
        ...(client
          ? {
              "idle, transactions": (after.transactions - before.transactions) / seconds,
              "idle, connections": after.connections,
            }
          : {}),
        ...(serverUs === undefined ? {} : { "idle, server CPU": serverUs / 1_000 / seconds }),
      };
    });
  } finally {
    await worker.stop();
  }
}

async function look(worker, client) {
  const { cpuUs } = await worker.call("report");
  if (!client) return { cpuUs };
  const { rows } = await client.query(
    `select pg_stat_clear_snapshot(),
       (select (xact_commit + xact_rollback)::float8 from pg_stat_database where datname = current_database()) as transactions,
       (select count(*)::int from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
         and backend_type = 'client backend') as connections`,
  );
  return { cpuUs, serverUs: await serverCpuUs(client), ...rows[0] };
}

/** Returns the resident memory of a process in bytes (Linux). */
function memoryOf(pid) {
  const [, kibibytes] = fs.readFileSync(`/proc/${pid}/status`, "utf8").match(/VmRSS:\s+(\d+)/);
  return Number(kibibytes) * 1_024;
}

const lower = (unit) => ({ unit, better: "lower" });

export const idleScenarios = {
  idle: {
    what: "CPU, memory, transactions and connections of a worker with nothing to do",
    isTogether: true,
    figures: {
      "idle, worker CPU": lower("ms/s"),
      "idle, server CPU": lower("ms/s"),
      "idle, worker memory": lower("MiB"),
      "idle, transactions": lower("/s"),
      "idle, connections": lower(""),
    },
    run: idle,
  },
};
