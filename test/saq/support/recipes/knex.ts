import type { Knex } from "knex";
import type { Queue, TransactionClient } from "../../../../templates/backend/saq/index.js";
import type { tasks } from "./tasks.js";

/** The transaction's own connection, which is a client of `pg`. */
export const clientOf = (trx: Knex.Transaction): Promise<TransactionClient> => trx.client.acquireConnection();

export async function placeOrder(knex: Knex, queue: Queue<typeof tasks>, item: string) {
  await knex.transaction(async (trx) => {
    await trx("orders").insert({ item });
    await queue.enqueue("shipOrder", { item }, { client: await clientOf(trx) });
  });
}
