/** Subscriptions to published messages while Redis is down. */
import { afterAll, beforeAll, expect, it } from "@jest/globals";
import { RedisConnection } from "../../../templates/backend/saq/redis/connection.js";
import { emptyFolder } from "../../support/folders.js";
import { redisMissing } from "../../support/redis.js";
import { openProxy } from "../support/cuttable-proxy.js";
import { LogBook } from "../support/log-book.js";
import { OwnRedis } from "../support/processes/redis-server.js";
import { closeAll } from "../support/scenario.js";

if (redisMissing) process.stderr.write(`Subscriptions on Redis are not tested: ${redisMissing}.\n`);

const server = new OwnRedis(emptyFolder());
let url = "";
beforeAll(async () => {
  if (!redisMissing) url = await server.start();
});
afterAll(() => server.destroy());

(redisMissing ? it.skip : it)(
  "a connection for published messages that is silent is replaced, and its subscribers learn of the gap",
  async () => {
    // Only what is published comes over this connection, so no command of the engine notices the silence.
    const proxy = await openProxy({ url });
    const connection = new RedisConnection(proxy.url, new LogBook(), "default").retain();
    try {
      const gap = new Promise<void>((resolve) => {
        void connection.subscribe("silent", () => {}, resolve);
      });
      await proxy.loseResponse("PING");
      await gap;
      expect(proxy.tries).toBe(2);
    } finally {
      await connection.release();
      await closeAll();
    }
  },
);

(redisMissing ? it.skip : it)(
  "a subscription fails in time while Redis is down, and works when it is back",
  async () => {
    const connection = new RedisConnection(url, new LogBook(), "default").retain();
    const ignore = () => {};
    try {
      const unsubscribe = await connection.subscribe("first", ignore, ignore);
      server.kill();
      await expect(connection.command(["PING"], { timeoutMs: 500 })).rejects.toMatchObject({
        code: "database_unavailable",
      });
      // Nobody is subscribed any more, but the lost connection is still being opened again.
      await unsubscribe();
      await expect(connection.subscribe("second", ignore, ignore)).rejects.toMatchObject({
        code: "database_unavailable",
      });
      await server.start();
      const received = new Promise<string>((resolve) => {
        const subscribed = connection.subscribe("third", resolve, ignore);
        void subscribed.then(() => connection.command(["PUBLISH", "third", "hello"]));
      });
      expect(await received).toBe("hello");
    } finally {
      await connection.release();
    }
  },
);
