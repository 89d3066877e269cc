/** When an idle worker on Redis finds scheduled jobs. */
import { afterAll, afterEach, expect, it } from "@jest/globals";
import { emptyFolder } from "../../support/folders.js";
import { openRedisDatabase, redisMissing } from "../../support/redis.js";
import { eventually } from "../support/processes/child.js";
import { OwnRedis } from "../support/processes/redis-server.js";
import { closeAfterTest, closeAll, openQueue, startWorker } from "../support/scenario.js";

if (redisMissing) process.stderr.write(`Scheduled jobs on Redis are not tested: ${redisMissing}.\n`);

const server = new OwnRedis(emptyFolder());
afterEach(closeAll);
afterAll(() => server.destroy());

(redisMissing ? it.skip : it)(
  "an idle worker looks for them every second, because nobody tells it of one that is due soon",
  async () => {
    const redis = await openRedisDatabase(await server.start());
    closeAfterTest({ close: () => redis.release() });
    await startWorker(openQueue(redis, { ok: () => "ok" }));
    // Only this look reads the beginning of the list of due jobs.
    const looks = async () =>
      Number(/cmdstat_lindex:calls=(\d+)/.exec(await redis.client.info("commandstats"))?.[1] ?? 0);
    await eventually("the worker is idle", async () => (await looks()) > 0);
    const [first, began] = [await looks(), performance.now()];
    await eventually("it has looked five times", async () => (await looks()) >= first + 5);
    // Every 5 s, it would have taken 20 s.
    expect(performance.now() - began).toBeLessThan(15_000);
  },
);
