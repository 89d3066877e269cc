/** What a task with a transaction of its own does, for contestants on PostgreSQL. */
import pg from "pg";

/** Runs `work(client)` in a transaction on one of `size` connections. */
export function transactionsOf(url, size) {
  const pool = new pg.Pool({ connectionString: url, max: size });
  // Those of a database that is dropped at the end.
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
