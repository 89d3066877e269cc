/** Transactions for tasks that use their own transaction, for contestants on PostgreSQL. */
import pg from "pg";

/** Returns an object whose `run(work)` calls `work(client)` in a transaction, on one of `size` connections. */
export function transactionsOf(url, size) {
  const pool = new pg.Pool({ connectionString: url, max: size });
  // Errors come when the database is dropped at the end of the run.
  pool.on("error", () => {});
  return {
    async run(work) {
      const client = await pool.connect();
      try {
        await client.query("begin");
        const result = await work(client);
        await client.query("commit");
        return result;
      } finally {
        client.release();
      }
    },
    close: () => pool.end(),
  };
}
