import type { Pool } from "pg";
import type { Queue } from "../../../../templates/backend/saq/index.js";
import type { tasks } from "./tasks.js";

export async function placeOrder(pool: Pool, queue: Queue<typeof tasks>, item: string) {
  const client = await pool.connect();
  try {
    await client.query("begin");
    await client.query("insert into orders (item) values ($1)", [item]);
    await queue.enqueue("shipOrder", { item }, { client });
    await client.query("commit");
  } catch (error) {
    await client.query("rollback");
    throw error;
  } finally {
    client.release();
  }
}
