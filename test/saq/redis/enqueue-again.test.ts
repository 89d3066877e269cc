/** A batch of enqueues on Redis that is sent again because its response was lost. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "@jest/globals";
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import {
  leaseRedisDatabase,
  type RedisClient,
  type RedisDatabase,
  redisMissing,
} from "../../support/redis.js";
import { openProxy } from "../support/cuttable-proxy.js";
import { claim, closeAll, openQueue, settle, settlement } from "../support/scenario.js";

if (redisMissing) process.stderr.write(`Enqueues on Redis are not tested: ${redisMissing}.\n`);

const tasks = { ok: async () => 1 };

(redisMissing ? describe.skip : describe)("a batch of enqueues on Redis", () => {
  let database: RedisDatabase;
  let redis: RedisClient;

  beforeAll(async () => {
    database = await leaseRedisDatabase();
    redis = database.client;
  });
  afterAll(() => database?.release());
  afterEach(closeAll);

  const mixed = () => [
    { task: "ok" as const },
    { task: "ok" as const, key: "own" },
    { task: "ok" as const, scheduled: inSeconds(3_600) },
    { task: "ok" as const, ttl: -1 },
    { task: "ok" as const, key: "own and short-lived", ttl: -1 },
    { task: "ok" as const },
  ];

  it.each([
    ["waits", false],
    ["ends", true],
  ])(
    "stores each job once if the response is lost and each due job %s before it is sent again",
    async (_, ends) => {
      const name = `again-${ends}`;
      // The proxy lets the answer pass that the server does not know the script.
      const proxy = await openProxy({ url: database.url });
      const queue = openQueue({ url: proxy.url }, tasks, { name });
      await queue.connect();
      const other = openQueue({ url: database.url }, tasks, { name });
      const isCarriedOut = proxy.mute();
      const enqueued = queue.enqueueMany(mixed());
      await isCarriedOut;
      if (ends) {
        for (const job of await claim(other)) {
          const isShortLived = job.document.includes('"ttl":-1');
          await settle(other, settlement(job, "complete", {}, { keep: isShortLived ? -1 : 600 }));
        }
      }
      proxy.cut();
      expect((await enqueued).map((job) => job?.key)).toEqual(Array(6).fill(expect.any(String)));
      expect(await redis.zCard(`saq:${name}:incomplete`)).toBe(ends ? 1 : 6);
      expect(await redis.lLen(`saq:${name}:queued`)).toBe(ends ? 0 : 5);
      if (ends) expect(await redis.zCard(`saq:${name}:ts:complete`)).toBe(3);
    },
  );
});
