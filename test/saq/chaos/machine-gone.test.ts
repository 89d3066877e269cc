/**
 * A worker whose machine disappears: its connections are not ended, and nothing responds any more. The network link of
 * the worker's namespace is set down, which needs root. Elsewhere the test is skipped with a message.
 */
import { execFileSync } from "node:child_process";
import { afterAll, beforeAll, describe, expect, it, jest } from "@jest/globals";
import {
  type StockPostgres,
  startStockPostgres,
  stockPostgresMissing,
} from "../../support/stock-postgres.js";
import { endAllWorkers, eventually, WorkerProcess } from "../support/processes/child.js";
import { newDatabase } from "../support/processes/database.js";
import { openQueue } from "../support/processes/enqueuer.js";

jest.setTimeout(120_000);

const id = process.pid % 10_000;
const namespace = `saqgone${id}`;
/** The two ends of a virtual network link, the test's and the worker's, in a subnet of their own. */
const [near, far] = [`sq${id}a`, `sq${id}b`];
const subnet = `10.213.${id % 250}`;

const ip = (...args: string[]) => execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });

/** Creates the link. Returns null on success, otherwise the reason why it is impossible. */
function layWire(): string | null {
  if (process.platform !== "linux" || process.getuid?.() !== 0)
    return "only root on Linux can take a network away";
  try {
    ip("netns", "add", namespace);
    ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", namespace);
    ip("addr", "add", `${subnet}.1/24`, "dev", near);
    ip("link", "set", near, "up");
    ip("-n", namespace, "addr", "add", `${subnet}.2/24`, "dev", far);
    ip("-n", namespace, "link", "set", far, "up");
    ip("-n", namespace, "link", "set", "lo", "up");
    return null;
  } catch (error) {
    removeWire();
    return `a network namespace cannot be made here: ${String((error as { stderr?: unknown }).stderr ?? error).trim()}`;
  }
}

function removeWire(): void {
  for (const args of [
    ["link", "del", near],
    ["netns", "del", namespace],
  ]) {
    try {
      ip(...args);
    } catch {
      // It does not exist.
    }
  }
}

const impossible = stockPostgresMissing ?? layWire();
if (impossible) process.stderr.write(`${impossible}: the test of a machine that vanishes is skipped.\n`);

(impossible ? describe.skip : describe)("a worker whose machine disappears", () => {
  let server: StockPostgres;

  beforeAll(async () => {
    server = await startStockPostgres({ alsoOn: `${subnet}.1` });
  });
  afterAll(async () => {
    await endAllWorkers();
    removeWire();
    await server?.stop();
  });

  it("is soon detected as dead, and its job runs again in another worker without using an attempt", async () => {
    const database = await newDatabase("gone", server.url);
    const { queue, close } = openQueue(database.url);
    const url = Object.assign(new URL(database.url), { hostname: `${subnet}.1` }).href;
    await WorkerProcess.start({ url, within: ["ip", "netns", "exec", namespace] });
    const job = await queue.enqueue("patient", { ms: 600_000 });
    await eventually("it runs", async () => (await database.runs(job.key)).length === 1);
    const other = await WorkerProcess.start({ url: database.url });
    const held = () =>
      database.query(
        "select pid from pg_locks where locktype = 'advisory' and classid = 21314 and granted and database = (select oid from pg_database where datname = current_database())",
      );
    expect(await held()).toHaveLength(2);
    // As if the power of the machine were cut: nothing is sent any more, not even that the machine is gone.
    ip("-n", namespace, "link", "set", far, "down");
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
