/**
 * Enqueueing in the caller's own transaction, with each library for which templates/docs/transactions.md has a recipe.
 * The recipes are programs (recipes/), and the document shows exactly these programs, except for the paths of imports.
 */
import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, it } from "@jest/globals";
import { PrismaPg } from "@prisma/adapter-pg";
import { drizzle } from "drizzle-orm/node-postgres";
import createKnex from "knex";
import { Kysely, PostgresDialect } from "kysely";
import pg from "pg";
import type { Context, Queue, TransactionClient } from "../../../templates/backend/saq/index.js";
import { codeBlocks } from "../../support/documents.js";
import { PrismaClient } from "../support/prisma/generated/client.js";
import * as drizzleRecipe from "../support/recipes/drizzle.js";
import * as knexRecipe from "../support/recipes/knex.js";
import * as kyselyRecipe from "../support/recipes/kysely.js";
import * as pgRecipe from "../support/recipes/pg.js";
import * as prismaRecipe from "../support/recipes/prisma.js";
import { tasks } from "../support/recipes/tasks.js";
import { closeAfterTest, openQueue, rowOf, startWorker, useDatabase } from "../support/scenario.js";

const database = useDatabase();

type Tasks = typeof tasks;

interface Library {
  /** The function of the recipe: stores an order and its job in one transaction. */
  placeOrder(queue: Queue<Tasks>, item: string): Promise<unknown>;
  /** Runs `work` in a transaction of this library, and rolls it back if `work` throws. */
  transaction(work: (client: TransactionClient) => Promise<unknown>): Promise<unknown>;
}

const openPool = () => {
  const pool = new pg.Pool({ connectionString: database.url });
  return closeAfterTest({ close: () => pool.end(), pool }).pool;
};

const libraries: Record<string, () => Library> = {
  pg: () => {
    const pool = openPool();
    return {
      placeOrder: (queue, item) => pgRecipe.placeOrder(pool, queue, item),
      transaction: async (work) => {
        const client = await pool.connect();
        try {
          await client.query("begin");
          await work(client);
          await client.query("commit");
        } catch (error) {
          await client.query("rollback");
          throw error;
        } finally {
          client.release();
        }
      },
    };
  },
  drizzle: () => {
    const db = drizzle(openPool());
    return {
      placeOrder: (queue, item) => drizzleRecipe.placeOrder(db, queue, item),
      transaction: (work) => db.transaction((tx) => work(drizzleRecipe.clientOf(tx))),
    };
  },
  kysely: () => {
    const db = new Kysely<{ orders: { item: string } }>({
      dialect: new PostgresDialect({ pool: openPool() }),
    });
    return {
      placeOrder: (queue, item) => kyselyRecipe.placeOrder(db, queue, item),
      transaction: (work) => db.transaction().execute((trx) => work(kyselyRecipe.clientOf(trx))),
    };
  },
  knex: () => {
    const knex = createKnex({ client: "pg", connection: database.url });
    closeAfterTest({ close: () => knex.destroy() });
    return {
      placeOrder: (queue, item) => knexRecipe.placeOrder(knex, queue, item),
      transaction: (work) => knex.transaction(async (trx) => work(await knexRecipe.clientOf(trx))),
    };
  },
  prisma: () => {
    const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: database.url }) });
    closeAfterTest({ close: () => prisma.$disconnect() });
    return {
      placeOrder: (queue, item) => prismaRecipe.placeOrder(prisma, queue, item),
      transaction: (work) => prisma.$transaction((tx) => work(prismaRecipe.clientOf(tx))),
    };
  },
};

// A repeated item makes only the commit fail, after every statement of the transaction has succeeded.
beforeAll(() => database.query("create table orders (item text primary key deferrable initially deferred)"));

const jobsOf = (queue: Queue<Tasks>) => queue.list();
const ordered = async (item: string) =>
  (await database.query("select 1 from orders where item = $1", [item])).length;

describe.each(Object.entries(libraries))("Q-16: enqueue in a transaction of %s", (name, open) => {
  it("commits the caller's row and the job together, and the job runs", async () => {
    const { placeOrder } = open();
    const queue = openQueue(database, tasks);
    const { ended } = await startWorker(queue);
    await placeOrder(queue, `${name} lamp`);
    const [job] = await jobsOf(queue);
    expect(await ended(job?.key ?? "")).toBe("Finished shipOrder");
    expect((await job?.refresh())?.result).toEqual({ shipped: `${name} lamp` });
    expect(await ordered(`${name} lamp`)).toBe(1);
  });

  it("stores neither row nor job when the transaction throws or its commit is refused", async () => {
    const { placeOrder, transaction } = open();
    const queue = openQueue(database, tasks);
    const thrown = transaction(async (client) => {
      await client.query("insert into orders (item) values ($1)", [`${name} sofa`]);
      await queue.enqueue("shipOrder", { item: "sofa" }, { client });
      throw new Error("changed my mind");
    });
    await expect(thrown).rejects.toThrow("changed my mind");
    expect(await ordered(`${name} sofa`)).toBe(0);
    expect(await jobsOf(queue)).toEqual([]);

    await placeOrder(queue, `${name} chair`);
    await expect(placeOrder(queue, `${name} chair`)).rejects.toThrow();
    expect(await ordered(`${name} chair`)).toBe(1);
    expect(await jobsOf(queue)).toHaveLength(1);
  });

  it("shows the job and wakes workers at the commit, not before", async () => {
    const { transaction } = open();
    const queue = openQueue(database, tasks);
    await queue.connect();
    const listener = await database.connect();
    const heard: string[] = [];
    const hears = () => new Promise((resolve) => listener.once("notification", resolve));
    listener.on("notification", ({ channel, payload }) => heard.push(`${channel} ${payload}`));
    await listener.query(`listen "saq:${queue.name}"; listen sentinel`);
    let woken: Promise<unknown> | undefined;
    await transaction(async (client) => {
      await queue.enqueue("shipOrder", { item: "desk" }, { client });
      const sentinel = hears();
      await database.query("notify sentinel, 'heard'");
      await sentinel;
      expect(heard).toEqual(["sentinel heard"]);
      expect(await jobsOf(queue)).toEqual([]);
      woken = hears();
    });
    await woken;
    expect(heard).toEqual(["sentinel heard", `saq:${queue.name} saq:enqueue`]);
    expect(await jobsOf(queue)).toHaveLength(1);
  });

  it("V-5.3: returns null for a key that is taken, and the transaction goes on", async () => {
    const { transaction } = open();
    const queue = openQueue(database, tasks);
    await queue.enqueue("shipOrder", { item: "bed" }, { key: `${name} bed` });
    await transaction(async (client) => {
      const options = { key: `${name} bed`, client };
      expect(await queue.enqueue("shipOrder", { item: "bed" }, options)).toBeNull();
      expect(await queue.enqueueDetailed("shipOrder", { item: "bed" }, options)).toEqual({
        enqueued: false,
        reason: "key_alive",
        key: `${name} bed`,
      });
      await client.query("insert into orders (item) values ($1)", [`${name} bed`]);
    });
    expect(await ordered(`${name} bed`)).toBe(1);
    expect(await jobsOf(queue)).toHaveLength(1);
  });

  it("ctx.finish commits the job's end together with the task's rows, and a rollback undoes both", async () => {
    const { transaction } = open();
    const deliver = (ctx: Context, { fails }: { fails: boolean }) =>
      transaction(async (client) => {
        await client.query("insert into orders (item) values ($1)", [`${name} ${fails}`]);
        await ctx.finish({ by: name }, { client });
        if (fails) throw new Error("no");
      });
    const queue = openQueue(database, { deliver });
    const { ended } = await startWorker(queue);
    const good = await queue.enqueue("deliver", { fails: false });
    const bad = await queue.enqueue("deliver", { fails: true });
    expect([await ended(good.key), await ended(bad.key)]).toEqual(["Finished deliver", "Failed deliver"]);
    expect((await good.refresh()).result).toEqual({ by: name });
    expect(await bad.refresh()).toMatchObject({ status: "failed", result: null });
    expect([await ordered(`${name} false`), await ordered(`${name} true`)]).toEqual([1, 0]);
  });

  it("stores each option and any text", async () => {
    const { transaction } = open();
    const queue = openQueue(database, tasks);
    const item = "$1 ? ?? :name ::text 'quoted' \"double\" \\ {a,b} NULL \u{1f6cb} \u0000 \ud800";
    const groupKey = '$2 {"a",NULL} ? :b \\';
    const key = `${name} ${groupKey}`;
    await transaction((client) =>
      queue.enqueue("shipOrder", { item }, { client, key, groupKey, priority: -3, scheduled: 4_000_000_000 }),
    );
    expect(await rowOf(database, key)).toMatchObject({
      status: "queued",
      group_key: groupKey,
      priority: -3,
      scheduled: 4_000_000_000,
    });
    expect((await queue.job(key))?.kwargs).toEqual({ item });
  });
});

it("templates/docs/transactions.md shows the recipes that are tested here", () => {
  const shown = codeBlocks(readFileSync("templates/docs/transactions.md", "utf8")).map(({ code }) => code);
  for (const name of Object.keys(libraries)) {
    const tested = readFileSync(`test/saq/support/recipes/${name}.ts`, "utf8")
      .replace("../../../../templates/backend/saq/index.js", "../../saq/index.js")
      .replace("../prisma/generated/client.js", "../generated/prisma/client.js")
      .replace("./drizzle-schema.js", "./schema.js");
    expect(shown).toContain(tested);
  }
});
