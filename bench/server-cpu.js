// CPU time of the database's processes, where the server runs on this machine (Linux).
import fs from "node:fs";

/**
 * Microseconds that each present connection to this database has used, by process id, ours excluded; undefined where
 * unknown.
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

/** What was used between two looks; undefined where unknown. Connections closed since the first do not count. */
export function cpuBetween(before, after) {
  if (!before || !after) return undefined;
  return [...after].reduce((sum, [pid, us]) => sum + us - (before.get(pid) ?? 0), 0);
}

function cpuOf(pid) {
  // A server elsewhere has the same numbers for other programs.
  if (fs.readFileSync(`/proc/${pid}/comm`, "utf8").trim() !== "postgres")
    throw new Error(`process ${pid} is not PostgreSQL`);
  // In nanoseconds; /proc/PID/stat counts in hundredths of a second, the cost of a thousand jobs.
  const [ns] = fs.readFileSync(`/proc/${pid}/schedstat`, "utf8").split(" ");
  return Number(ns) / 1_000;
}
