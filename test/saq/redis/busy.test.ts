/** A Redis that is busy with the script of another program: it refuses every command until the script ends. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, expect, it } from "@jest/globals";
import { emptyFolder } from "../../support/folders.js";
import { connectRedis, openRedisDatabase, redisMissing } from "../../support/redis.js";
import { LogBook } from "../support/log-book.js";
import { eventually } from "../support/processes/child.js";
import { OwnRedis } from "../support/processes/redis-server.js";
import { closeAfterTest, closeAll, openQueue, startWorker } from "../support/scenario.js";

if (redisMissing) process.stderr.write(`A busy Redis is not tested: ${redisMissing}.\n`);

const server = new OwnRedis(emptyFolder(), ["--lua-time-limit", "10"]);
afterEach(closeAll);
afterAll(() => server.destroy());

(redisMissing ? it.skip : it)(
  "jobs that end meanwhile are recorded, and enqueues are stored, when the script has ended",
  async () => {
    const url = await server.start();
    const redis = await openRedisDatabase(url);
    closeAfterTest({ close: () => redis.release() });
    const other = await connectRedis(url);
    closeAfterTest({ close: async () => other.destroy() });
    const isBusy = async () => {
      const answer = await redis.client.ping().catch((error: Error) => error.message);
      return answer.startsWith("BUSY");
    };
    let finish = () => {};
    const finished = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const logger = new LogBook();
    const tasks = { wait: () => finished, ok: () => "ok" };
    const queue = openQueue(redis, tasks, { logger });
    const { ended, log } = await startWorker(queue);
    const job = await queue.enqueue("wait");
    await log.saw(({ message }) => message === "Processing wait");
    const script = other.eval("while true do end", { keys: [], arguments: [] }).catch(() => "killed");
    await eventually("the server is busy", isBusy);
    finish();
    const enqueued = queue.enqueue("ok");
    await logger.saw(({ message }) => message === "Redis does not answer, trying again");
    await sleep(100);
    await redis.client.sendCommand(["SCRIPT", "KILL"]);
    expect(await script).toBe("killed");
    expect(await ended((await enqueued).key)).toBe("Finished ok");
    expect(await ended(job.key)).toBe("Finished wait");
    expect(await job.refresh()).toMatchObject({ status: "complete", attempts: 1, meta: {} });
  },
);
