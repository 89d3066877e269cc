// Measures the server's work by counting and not by timing, so that other load of the machine does not change the
// figures.
import pg from "pg";
import { withClient } from "./database.js";
import { cpuBetween, serverCpuUs } from "./server-cpu.js";

/**
 * Makes the server count the statements of connections that are opened during `work`. This needs pg_stat_statements;
 * the argument of `work` is true if it is available. The counting is on only during `work`, because it costs more for
 * contestants that send more statements.
 */
export async function countingStatements(url, work) {
  const database = pg.escapeIdentifier(new URL(url).pathname.slice(1));
  const isLoaded = await withClient(url, async (client) => {
    const { rowCount } = await client.query(
      "select 1 from pg_settings where name = 'pg_stat_statements.max'",
    );
    if (!rowCount) return false;
    await client.query("create extension if not exists pg_stat_statements");
    await client.query(`alter database ${database} set compute_query_id = on`);
    await client.query(`alter database ${database} set pg_stat_statements.track = top`);
    return true;
  });
  try {
    return await work(isLoaded);
  } finally {
    if (isLoaded) await withClient(url, (client) => client.query(`alter database ${database} reset all`));
  }
}

/** Starts to count, including statements if `countsStatements` is true. Statements of `client` itself do not count. */
export async function startMeter(client, { countsStatements = false } = {}) {
  if (countsStatements) {
    await client.query("set pg_stat_statements.track = none");
    await client.query(
      "select pg_stat_statements_reset(0, oid, 0) from pg_database where datname = current_database()",
    );
  }
  const wal = await walPosition(client);
  const cpu = await serverCpuUs(client);
  return {
    /** Returns the counts since the start. `serverUs` is undefined if the server runs on another machine. */
    async read() {
      const serverUs = cpuBetween(cpu, await serverCpuUs(client));
      const walBytes = (await walPosition(client)) - wal;
      return { serverUs, walBytes, ...(countsStatements ? await statementsOf(client) : {}) };
    },
  };
}

/** Returns the number of statements, and of page accesses (`blocks`), both in memory and on disk. */
async function statementsOf(client) {
  const { rows } = await client.query(
    `select coalesce(sum(s.calls), 0)::float8 as statements,
       coalesce(sum(s.shared_blks_hit + s.shared_blks_read), 0)::float8 as blocks
     from pg_stat_statements s join pg_database d on d.oid = s.dbid where d.datname = current_database()`,
  );
  return rows[0];
}

async function walPosition(client) {
  const { rows } = await client.query(
    "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8 as position",
  );
  return rows[0].position;
}
