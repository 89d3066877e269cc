import { CompiledQuery, type Kysely } from "kysely";
import type { Queue, TransactionClient } from "../../../../templates/backend/saq/index.js";
import type { tasks } from "./tasks.js";

export const clientOf = (trx: Pick<Kysely<unknown>, "executeQuery">): TransactionClient => ({
  query: (text, values) => trx.executeQuery(CompiledQuery.raw(text, values)),
});

export async function placeOrder(
  db: Kysely<{ orders: { item: string } }>,
  queue: Queue<typeof tasks>,
  item: string,
) {
  await db.transaction().execute(async (trx) => {
    await trx.insertInto("orders").values({ item }).execute();
    await queue.enqueue("shipOrder", { item }, { client: clientOf(trx) });
  });
}
