// CPU time of the database's processes, where the server runs on this machine (Linux).
import fs from "node:fs";

/** Linux counts process time in hundredths of a second. */
const usPerTick = 10_000;

/** Microseconds that the present connections to this database have used, ours excluded; undefined where unknown. */
export async function serverCpuUs(client) {
  const { rows } = await client.query(
    `select pid from pg_stat_activity
     where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()`,
  );
  try {
    return rows.reduce((sum, { pid }) => sum + ticksOf(pid), 0) * usPerTick;
  } catch {
    return undefined;
  }
}

function ticksOf(pid) {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
  // A server elsewhere has the same numbers for other programs.
  if (!stat.includes("(postgres)")) throw new Error(`process ${pid} is not PostgreSQL`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}
