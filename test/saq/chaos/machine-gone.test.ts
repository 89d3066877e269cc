/**
 * A worker whose machine disappears: its connections are not ended, and nothing responds any more. The network link of
 * the worker's namespace is cut, which needs root. Elsewhere the test is skipped with a message.
 */
import { afterAll, beforeAll, describe, expect, it, jest } from "@jest/globals";
import {
  type StockPostgres,
  startStockPostgres,
  stockPostgresMissing,
} from "../../support/stock-postgres.js";
import { IsolatedNetwork } from "../support/isolated-network.js";
import { endAllWorkers, eventually, WorkerProcess } from "../support/processes/child.js";
import { newDatabase } from "../support/processes/database.js";
import { openQueue } from "../support/processes/enqueuer.js";

jest.setTimeout(120_000);

const network = new IsolatedNetwork("gone");
const impossible = stockPostgresMissing ?? network.build();
if (impossible) process.stderr.write(`${impossible}: the test of a machine that vanishes is skipped.\n`);

(impossible ? describe.skip : describe)("a worker whose machine disappears", () => {
  let server: StockPostgres;

  beforeAll(async () => {
    server = await startStockPostgres({ alsoOn: network.outside });
  });
  afterAll(async () => {
    await endAllWorkers();
    network.remove();
    await server?.stop();
  });

  it("is soon detected as dead, and its job runs again in another worker without using an attempt", async () => {
    const database = await newDatabase("gone", server.url);
    const { queue, close } = openQueue(database.url);
    const url = Object.assign(new URL(database.url), { hostname: network.outside }).href;
    await WorkerProcess.start({ url, within: network.within });
    const job = await queue.enqueue("patient", { ms: 600_000 });
    await eventually("it runs", async () => (await database.runs(job.key)).length === 1);
    const other = await WorkerProcess.start({ url: database.url });
    const held = () =>
      database.query(
        "select pid from pg_locks where locktype = 'advisory' and classid = 21314 and granted and database = (select oid from pg_database where datname = current_database())",
      );
    expect(await held()).toHaveLength(2);
    // As if the power of the machine were cut: nothing is sent any more, not even that the machine is gone.
    network.cut();
    // By default the server would keep the worker's session for two hours.
    await eventually("its lock is free", async () => (await held()).length === 1, 45_000);
    await other.said("worker died, its jobs were taken over", 45_000);
    const [, again] = await eventually("it runs again", async () => {
      const runs = await database.runs(job.key);
      return runs.length === 2 ? runs : null;
    });
    expect(again?.pid).toBe(other.pid);
    expect(await database.document(job.key)).toMatchObject({
      status: "active",
      attempts: 1,
      meta: { lost: 1 },
    });
    await endAllWorkers();
    await close();
    await database.drop();
  });
});
