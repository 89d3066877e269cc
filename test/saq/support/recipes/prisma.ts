import type { Queue, TransactionClient } from "../../../../templates/backend/saq/index.js";
import type { Prisma, PrismaClient } from "../prisma/generated/client.js";
import type { tasks } from "./tasks.js";

export const clientOf = (tx: Pick<Prisma.TransactionClient, "$queryRawUnsafe">): TransactionClient => ({
  query: async (text, values) => ({ rows: await tx.$queryRawUnsafe(text, ...values) }),
});

export async function placeOrder(prisma: PrismaClient, queue: Queue<typeof tasks>, item: string) {
  await prisma.$transaction(async (tx) => {
    await tx.order.create({ data: { item } });
    await queue.enqueue("shipOrder", { item }, { client: clientOf(tx) });
  });
}
