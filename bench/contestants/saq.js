/**
 * SAQ for Python on PostgreSQL with its defaults, run by saq-child.py in the Python of BENCH_SAQ_PYTHON. It creates its
 * own tables. They are the same as the engine's except for the engine's additions, so both use the same `admin`.
 */
import { execFileSync } from "node:child_process";
import path from "node:path";
import { ContestantProcess } from "../process.js";
import * as saqTable from "./saq-table.js";

const python = process.env.BENCH_SAQ_PYTHON;
const program = path.join(import.meta.dirname, "saq-child.py");
const requirement = 'pip install "saq[postgres]==0.26.3" "psycopg[binary]"';

function lookUp() {
  if (!python) return { absent: `BENCH_SAQ_PYTHON names no Python that has it (${requirement})` };
  try {
    const answer = execFileSync(python, [program, "--version"], { encoding: "utf8", stdio: "pipe" });
    return { version: answer.trim() };
  } catch (error) {
    const reason = (error.stderr || error.message).trim().split("\n").at(-1);
    return { absent: `BENCH_SAQ_PYTHON is ${python}, which does not run it: ${reason} (${requirement})` };
  }
}

export const { version, absent } = lookUp();

/**
 * SAQ has no bulk call. More jobs than this would not be run in time, and storing them would take longer than running
 * them.
 */
export const mostJobs = 3_000;

export const command = [python, program];

/** Starts a producer and stops it: a queue creates its tables when it connects. */
export async function install(url) {
  const producer = await ContestantProcess.start({ contestant: "saq", role: "producer", url, command });
  await producer.stop();
}

/** Without `shape`: SAQ's documents contain members that the engine leaves out if they have their default value. */
export async function admin(url) {
  const { shape: _, ...rest } = await saqTable.admin(url);
  return rest;
}
