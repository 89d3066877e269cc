/** Responses that arrive slowly although the server has sent them completely. */
import { beforeAll, expect, it } from "@jest/globals";
import { openProxy } from "../support/cuttable-proxy.js";
import { LogBook } from "../support/log-book.js";
import { claim, openQueue, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };

beforeAll(async () => {
  const queue = openQueue(database, tasks);
  await queue.connect();
  await queue.close();
});

it("a large document is claimed over a slow network, and its connection does not count as dead", async () => {
  const log = new LogBook();
  const proxy = await openProxy(database);
  const queue = openQueue(proxy, tasks, { logger: log });
  const { key } = await queue.enqueue("hello", { text: "x".repeat(5_000_000) });
  proxy.slowDown();
  expect((await claim(queue)).map((job) => job.key)).toEqual([key]);
  expect(log.lines.filter(({ level }) => level === "warn")).toEqual([]);
}, 120_000);
