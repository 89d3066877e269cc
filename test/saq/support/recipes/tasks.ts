import type { Context } from "../../../../templates/backend/saq/index.js";

export const tasks = {
  shipOrder: async (_ctx: Context, { item }: { item: string }) => ({ shipped: item }),
};
