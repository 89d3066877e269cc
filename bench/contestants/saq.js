/**
 * SAQ for Python on PostgreSQL, with its defaults, in the Python that BENCH_SAQ_PYTHON names; saq-child.py plays its roles.
 * It makes its own tables; they are the engine's but for the engine's additions, so that one administrative side fits
 * both.
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

/** It has no call for many: those that it cannot run in time anyway would take longer to store than to run. */
export const mostJobs = 3_000;

export const command = [python, program];

/** A queue that connects makes its tables. */
export async function install(url) {
  const producer = await ContestantProcess.start({ contestant: "saq", role: "producer", url, command });
  await producer.stop();
}

/** Its rows are not compared with the engine's: its documents name what the engine leaves out at its default. */
export async function admin(url) {
  const { shape: _, ...rest } = await saqTable.admin(url);
  return rest;
}
