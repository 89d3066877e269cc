/**
 * Parts of a Redis queue that are cut off from the others by the network: nothing arrives any more, and no connection
 * is ended. Needs root. Elsewhere the tests are skipped with a message.
 */
import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import { redisServerMissing } from "../../support/redis.js";
import { IsolatedNetwork } from "../support/isolated-network.js";
import { endAllWorkers, eventually, WorkerProcess } from "../support/processes/child.js";
import { openQueue } from "../support/processes/enqueuer.js";
import { TestServer } from "../support/redis-topology.js";

jest.setTimeout(180_000);

const network = new IsolatedNetwork("part");
const impossible = redisServerMissing ?? network.build();
if (impossible) process.stderr.write(`${impossible}: queues on a network that is cut are not tested.\n`);

const inside = { host: network.inside, within: network.within };
const outside = { host: network.outside };

(impossible ? describe.skip : describe)("a Redis queue on a network that is cut", () => {
  afterEach(endAllWorkers);
  afterAll(() => network.remove());

  const beginOf = async (worker: WorkerProcess) => Number((await worker.said("logged: begin")).at);
  const endOf = async (worker: WorkerProcess) => Number((await worker.said("logged: end")).at);

  /**
   * Cuts a worker in the namespace off while it runs a job. Expects that it ends the job, and that afterwards another
   * worker runs the job again, without using an attempt.
   */
  async function cutOffRun({ url, queue }: { url: string; queue: ReturnType<typeof openQueue>["queue"] }) {
    const cutOff = await WorkerProcess.start({ url, within: network.within });
    const { key } = await queue.enqueue("logged", { ms: 600_000 }, { timeout: 0 });
    await beginOf(cutOff);
    const other = await WorkerProcess.start({ url });
    network.cut();
    expect(await beginOf(other)).toBeGreaterThan(await endOf(cutOff));
    expect(await queue.job(key)).toMatchObject(runsAgain);
    return { cutOff, other, key };
  }
  const runsAgain = { status: "active", attempts: 1, meta: { lost: 1 } };

  it("a worker whose machine disappears has ended its job before another worker runs it again", async () => {
    const server = await TestServer.start([], outside);
    const url = `redis://${server.name}`;
    const { queue, close } = openQueue(url);
    try {
      await cutOffRun({ url, queue });
    } finally {
      network.restore();
      await endAllWorkers();
      await close();
      await server.kill();
    }
  });

  describe("with the master and one of three Sentinels on one side", () => {
    let master: TestServer;
    let replica: TestServer;
    let sentinels: TestServer[];
    let url: string;

    beforeAll(async () => {
      const settings = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
      // A master that is cut off must not acknowledge what the next master does not have.
      const safe = ["--min-replicas-to-write", "1", "--min-replicas-max-lag", "2"];
      master = await TestServer.start([...settings, ...safe], inside);
      const following = ["--replicaof", network.inside, String(master.port)];
      replica = await TestServer.start([...settings, ...following], outside);
      await eventually(
        "the replica is in sync",
        async () => (await replica.info("master_link_status")) === "up",
      );
      const config = [
        `sentinel monitor mymaster ${network.inside} ${master.port} 2`,
        "sentinel down-after-milliseconds mymaster 1500",
        "sentinel failover-timeout mymaster 3000",
      ];
      sentinels = await Promise.all(
        [inside, outside, outside].map((place) =>
          TestServer.start(["--sentinel"], { config: `${config.join("\n")}\n`, ...place }),
        ),
      );
      url = `redis+sentinel://${sentinels.map(({ name }) => name).join(",")}/mymaster`;
      await eventually("the Sentinels know one another and the replica", async () => {
        const answers = await Promise.all(
          sentinels.map((sentinel) => sentinel.send("SENTINEL", "CKQUORUM", "mymaster")),
        );
        return answers.every((answer) => String(answer).startsWith("OK 3 usable Sentinels"));
      });
    });
    afterAll(async () => {
      await Promise.all([master, replica, ...(sentinels ?? [])].map((server) => server?.kill()));
    });

    it("its worker has ended its job before the other side runs it again, and it returns to the queue", async () => {
      const { queue, close } = openQueue(url);
      try {
        const { cutOff, other, key } = await cutOffRun({ url, queue });
        expect(await replica.info("role")).toBe("master");
        network.restore();
        await eventually("the previous master follows", async () => (await master.info("role")) === "slave");
        await other.stop();
        // The worker that was cut off has found the new master: it takes over the job that the other one gave back.
        await eventually(
          "the worker that was cut off runs the job again",
          async () => cutOff.lines.filter(({ message }) => message === "logged: begin").length === 2,
        );
        expect(await queue.job(key)).toMatchObject(runsAgain);
      } finally {
        network.restore();
        await endAllWorkers();
        await close();
      }
    });
  });
});
