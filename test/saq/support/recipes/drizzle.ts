import { sql } from "drizzle-orm";
import type { NodePgDatabase } from "drizzle-orm/node-postgres";
import type { Queue, TransactionClient } from "../../../../templates/backend/saq/index.js";
import { orders } from "./drizzle-schema.js";
import type { tasks } from "./tasks.js";

/** Drizzle numbers parameters itself, so each `$1` of the text becomes a parameter of its own. */
export const clientOf = (tx: Pick<NodePgDatabase, "execute">): TransactionClient => ({
  query: (text, values) =>
    tx.execute(
      sql.join(
        text
          .split(/\$(\d+)/)
          .map((part, i) => (i % 2 ? sql`${sql.param(values[Number(part) - 1])}` : sql.raw(part))),
      ),
    ),
});

export async function placeOrder(db: NodePgDatabase, queue: Queue<typeof tasks>, item: string) {
  await db.transaction(async (tx) => {
    await tx.insert(orders).values({ item });
    await queue.enqueue("shipOrder", { item }, { client: clientOf(tx) });
  });
}
