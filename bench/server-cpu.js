// Reads the CPU time of the database's processes, if the server runs on this machine (Linux).
import fs from "node:fs";

/**
 * Returns the CPU time in microseconds that each present connection to this database has used, by process id. The
 * connection of `client` is excluded. Returns undefined if the CPU time cannot be read.
 */
export async function serverCpuUs(client) {
  const { rows } = await client.query(
    `select pid from pg_stat_activity
     where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()`,
  );
  try {
    return new Map(rows.map(({ pid }) => [pid, cpuOf(pid)]));
  } catch {
    return undefined;
  }
}

/**
 * Returns the CPU time in microseconds that was used between two results of serverCpuUs(), or undefined if one of them
 * is undefined. Connections that were closed in between do not count.
 */
export function cpuBetween(before, after) {
  if (!before || !after) return undefined;
  return [...after].reduce((sum, [pid, us]) => sum + us - (before.get(pid) ?? 0), 0);
}

function cpuOf(pid) {
  // If the server runs on another machine, its process ids belong to other programs here.
  if (fs.readFileSync(`/proc/${pid}/comm`, "utf8").trim() !== "postgres")
    throw new Error(`process ${pid} is not PostgreSQL`);
  // schedstat counts in nanoseconds. /proc/PID/stat counts in hundredths of a second, which is the cost of 1,000 jobs.
  const [ns] = fs.readFileSync(`/proc/${pid}/schedstat`, "utf8").split(" ");
  return Number(ns) / 1_000;
}

/** Returns the CPU time in microseconds that a Redis server has used. `client`: a connection of ioredis to it. */
export async function redisCpuUs(client) {
  const info = await client.info("cpu");
  const secondsOf = (name) => Number(new RegExp(`^${name}:(.*)\r$`, "m").exec(info)?.[1]);
  return (secondsOf("used_cpu_sys") + secondsOf("used_cpu_user")) * 1e6;
}
