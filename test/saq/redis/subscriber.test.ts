/** Subscriptions to published messages while Redis is down. */
import { afterAll, expect, it } from "@jest/globals";
import { RedisConnection } from "../../../templates/backend/saq/redis/connection.js";
import { emptyFolder } from "../../support/folders.js";
import { redisMissing } from "../../support/redis.js";
import { LogBook } from "../support/log-book.js";
import { OwnRedis } from "../support/processes/redis-server.js";

if (redisMissing) process.stderr.write(`Subscriptions on Redis are not tested: ${redisMissing}.\n`);

const server = new OwnRedis(emptyFolder());
afterAll(() => server.destroy());

(redisMissing ? it.skip : it)(
  "a subscription fails in time while Redis is down, and works when it is back",
  async () => {
    const connection = new RedisConnection(await server.start(), new LogBook(), "default").retain();
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
