/**
 * SAQ for Python with its defaults, on PostgreSQL or on Redis, run by saq-child.py in the Python of BENCH_SAQ_PYTHON.
 * It creates its own tables. They are the same as the engine's except for the engine's additions, so both use the same
 * `admin`.
 */
import { execFileSync } from "node:child_process";
import path from "node:path";
import { ContestantProcess } from "../process.js";
import { admin as redisAdmin } from "./redis-admin.js";
import * as saqTable from "./saq-table.js";

const python = process.env.BENCH_SAQ_PYTHON;
const program = path.join(import.meta.dirname, "saq-child.py");

/** More jobs than this would not be run in time. SAQ has no bulk call, so storing them would take longer still. */
const mostJobs = { postgres: 3_000, redis: 5_000 };

export function contestant({ redis }) {
  const broker = redis ? "redis" : "postgres";
  const command = [python, program];

  /** Starts a producer and stops it: a queue creates its tables when it connects. */
  async function install(url) {
    if (redis) return;
    const producer = await ContestantProcess.start({ contestant: "saq", role: "producer", url, command });
    await producer.stop();
  }

  /** Without `shape`: SAQ's documents contain members that the engine leaves out if they have their default value. */
  async function admin(url) {
    if (redis) return redisAdmin(url, { hasFinished: false });
    const { shape: _, ...rest } = await saqTable.admin(url);
    return rest;
  }

  return {
    ...lookUp(broker),
    ...(redis ? { redisDatabase: 3 } : {}),
    mostJobs: mostJobs[broker],
    command,
    install,
    admin,
  };
}

function lookUp(broker) {
  const requirement =
    broker === "redis"
      ? 'pip install "saq[redis]==0.26.3"'
      : 'pip install "saq[postgres]==0.26.3" "psycopg[binary]"';
  if (!python) return { absent: `BENCH_SAQ_PYTHON names no Python that has it (${requirement})` };
  try {
    const answer = execFileSync(python, [program, "--version", broker], { encoding: "utf8", stdio: "pipe" });
    return { version: answer.trim() };
  } catch (error) {
    const reason = (error.stderr || error.message).trim().split("\n").at(-1);
    return { absent: `BENCH_SAQ_PYTHON is ${python}, which does not run it: ${reason} (${requirement})` };
  }
}
