/**
 * Queues on one Redis server while workers and the server are killed, workers are paused, and connections are cut in
 * the middle of a settlement. The scenarios mostly wait, so they run at the same time, each on a server of its own.
 */
import { afterAll, beforeAll, describe, expect, it } from "@jest/globals";
import { changeScript } from "../../../templates/backend/saq/redis/lua/change.js";
import { completeScript } from "../../../templates/backend/saq/redis/lua/complete.js";
import { emptyFolder } from "../../support/folders.js";
import { measured } from "../../support/measured.js";
import { openRedisDatabase, redisMissing } from "../../support/redis.js";
import { openProxy } from "../support/cuttable-proxy.js";
import { endAllWorkers, eventually, WorkerProcess } from "../support/processes/child.js";
import { newDatabase, type TestDatabase } from "../support/processes/database.js";
import { loadRedisClient, openQueue } from "../support/processes/enqueuer.js";
import { OwnRedis } from "../support/processes/redis-server.js";

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Every write is on the disk before its response is sent. */
const durable = ["--appendonly", "yes", "--appendfsync", "always"];

interface Stage {
  redis: OwnRedis;
  database: TestDatabase;
  queue: ReturnType<typeof openQueue>["queue"];
  /** Starts a worker process. The evidence counts what it logs. */
  work(options?: Partial<Parameters<typeof WorkerProcess.start>[0]>): Promise<WorkerProcess>;
  /** Keys of the jobs whose enqueue has returned. */
  acknowledged: string[];
  /**
   * Enqueues jobs, `inFlight` calls at a time with `everyMs` between them, until the returned function is called. The
   * workers must keep up: a job that is queued again waits behind all others.
   */
  load(
    payload: () => { ms: number; fails?: number },
    options: { inFlight: number; everyMs: number },
  ): () => Promise<void>;
  /** Resolves when no acknowledged job waits or runs. */
  drained(): Promise<unknown>;
  evidence(): Promise<Evidence>;
}

interface Evidence {
  acknowledged: number;
  /** Acknowledged jobs that are not complete. */
  lost: string[];
  /** Jobs whose completion more than one worker, or one worker more than once, has recorded. */
  endedTwice: string[];
  runs: Map<string, number>;
  /** Attempts of each acknowledged job, as its document counts them. */
  attempts: Map<string, number>;
}

async function scenario<T>(settings: readonly string[], play: (stage: Stage) => Promise<T>): Promise<T> {
  const redis = new OwnRedis(emptyFolder(), settings);
  const database = await newDatabase("faults", undefined, await openRedisDatabase(await redis.start()));
  const { queue, close } = openQueue(database.url);
  const workers: WorkerProcess[] = [];
  const acknowledged: string[] = [];
  try {
    await queue.connect();
    return await play({
      redis,
      database,
      queue,
      acknowledged,
      work: async (options) => {
        const worker = await WorkerProcess.start({ ...database.worker, concurrency: 5, ...options });
        workers.push(worker);
        return worker;
      },
      load: (payload, { inFlight, everyMs }) => {
        let over = false;
        const enqueueOn = async () => {
          while (!over) {
            // An enqueue that fails during an outage is not acknowledged.
            const job = await queue.enqueue("churn", payload(), { retries: 3 }).catch(() => null);
            if (job) acknowledged.push(job.key);
            await pause(everyMs);
          }
        };
        const loops = Array.from({ length: inFlight }, enqueueOn);
        return async () => {
          over = true;
          await Promise.all(loops);
        };
      },
      drained: () => eventually("every job has ended", async () => (await queue.count("incomplete")) === 0),
      evidence: async () => {
        const ends = countBy(
          workers.flatMap(({ lines }) => lines.filter(({ message }) => message.startsWith("Finished "))),
          ({ job }) => String(job),
        );
        const jobs = await Promise.all(acknowledged.map((key) => queue.job(key)));
        return {
          acknowledged: acknowledged.length,
          lost: acknowledged.filter((_, index) => jobs[index]?.status !== "complete"),
          endedTwice: [...ends].flatMap(([key, count]) => (count > 1 ? [key] : [])),
          runs: countBy(await database.runs(), ({ job }) => job),
          attempts: new Map(acknowledged.map((key, index) => [key, jobs[index]?.attempts ?? 0])),
        };
      },
    });
  } finally {
    await close();
    for (const worker of workers) worker.signal("SIGKILL");
    await Promise.all(workers.map(({ exited }) => exited));
    await database.drop();
    redis.destroy();
  }
}

function countBy<Item>(items: readonly Item[], keyOf: (item: Item) => string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const item of items) counts.set(keyOf(item), (counts.get(keyOf(item)) ?? 0) + 1);
  return counts;
}

function report(
  what: string,
  { acknowledged, lost, endedTwice, runs, attempts }: Evidence,
  recoveryMs: number,
): void {
  const again = [...runs].filter(([key, count]) => count > (attempts.get(key) ?? 0)).length;
  const counts = `${acknowledged} jobs, ${lost.length} lost, ${endedTwice.length} ended twice, ${again} ran again`;
  measured(
    `Redis, ${what}: ${counts}, at most ${Math.max(...runs.values())} runs; recovered after`,
    recoveryMs,
  );
}

/** Two workers of three are killed, one after the other, and replaced. */
const killedWorkers = () =>
  scenario([], async ({ database, work, load, drained, evidence }) => {
    const workers = await Promise.all([work(), work(), work()]);
    const stop = load(() => ({ ms: 100 + 200 * Math.random() }), { inFlight: 4, everyMs: 80 });
    await eventually("the workers are at work", async () => (await database.runs()).length > 60);
    const ranBy = async ({ pid }: WorkerProcess) => (await database.runs()).filter((run) => run.pid === pid);
    const victims = workers.slice(0, 2);
    const recoveries: Promise<number>[] = [];
    for (const victim of victims) {
      await eventually("jobs run", async () => (await ranBy(victim)).some(({ ended }) => ended === null));
      victim.signal("SIGKILL");
      await victim.exited;
      const killedAt = performance.now();
      for (const { job } of (await ranBy(victim)).filter(({ ended }) => ended === null))
        recoveries.push(
          eventually("its job runs again", async () => (await database.runs(job)).length > 1).then(
            () => performance.now() - killedAt,
          ),
        );
      await work();
    }
    const ms = Math.max(...(await Promise.all(recoveries)));
    await stop();
    await drained();
    const seen = await evidence();
    report("SIGKILL of two workers", seen, ms);
    const pids = new Set(victims.map(({ pid }) => pid));
    const runsOf = new Map<string, number[]>();
    for (const { job, pid } of await database.runs()) runsOf.set(job, [...(runsOf.get(job) ?? []), pid]);
    // Jobs that a killed worker had only claimed run once.
    const wrong = [...runsOf].filter(([, by]) => by.slice(0, -1).some((pid) => !pids.has(pid)));
    return { ...seen, ms, recovered: recoveries.length, ranAgainWithoutReason: wrong };
  });

/** The server is killed twice, and started again with its data. */
const killedServer = () =>
  scenario(durable, async ({ redis, work, load, acknowledged, drained, evidence }) => {
    await Promise.all([work(), work()]);
    const stop = load(() => ({ ms: 5 }), { inFlight: 10, everyMs: 20 });
    await eventually("jobs are enqueued", async () => acknowledged.length > 300);
    let ms = 0;
    for (let round = 0; round < 2; round++) {
      redis.kill();
      await pause(500);
      await redis.start();
      const startedAt = performance.now();
      const before = acknowledged.length;
      await eventually("enqueues are taken again", async () => acknowledged.length > before + 50);
      ms = Math.max(ms, performance.now() - startedAt);
    }
    await stop();
    await drained();
    const seen = await evidence();
    report("SIGKILL of the server with appendfsync always, twice", seen, ms);
    return seen;
  });

/** A worker is paused for 30 s while another one works. Its jobs run elsewhere, and its late results come too late. */
const pausedWorker = () =>
  scenario([], async ({ database, queue, work, load, acknowledged, drained, evidence }) => {
    const sleeper = await work();
    const held: string[] = [];
    // The tasks of the first three jobs are over when the process wakes. The others still run then.
    for (const ms of [3_000, 3_000, 3_000, 33_000, 33_000])
      held.push((await queue.enqueue("patient", { ms })).key);
    acknowledged.push(...held);
    const ran = async () => (await database.runs()).filter(({ job }) => held.includes(job));
    await eventually("all of them run", async () => (await ran()).length === held.length);
    sleeper.signal("SIGSTOP");
    const pausedAt = performance.now();
    const heir = await work({ concurrency: 10 });
    const stop = load(() => ({ ms: 20 }), { inFlight: 2, everyMs: 100 });
    await eventually("all of them run again", async () => (await ran()).length === 2 * held.length);
    const ms = performance.now() - pausedAt;
    await pause(Math.max(30_000 - ms, 0));
    const over = held.slice(0, 3);
    await eventually("the short ones are complete", async () =>
      (await Promise.all(over.map((key) => database.document(key)))).every(
        ({ status }) => status === "complete",
      ),
    );
    const before = await Promise.all(over.map((key) => database.document(key)));
    sleeper.signal("SIGCONT");
    await eventually("the late runs have ended", async () =>
      (await ran()).every(({ pid, ended }) => pid !== sleeper.pid || ended !== null),
    );
    await stop();
    // When this worker has stopped, its late settlements have been sent and refused.
    expect((await sleeper.stop()).code).toBe(0);
    const after = await Promise.all(over.map((key) => database.document(key)));
    await drained();
    const seen = await evidence();
    report("SIGSTOP of a worker for 30 s", seen, ms);
    const refused = sleeper.lines.filter(({ message }) => message.startsWith("lost the job"));
    return {
      ...seen,
      ms,
      held,
      before,
      after,
      refused: refused.length,
      heir: heir.pid,
      last: await Promise.all(held.map((key) => database.document(key))),
    };
  });

/** Connections are cut while settlements are sent: before the script is carried out, and after it. */
const cutSettlements = () =>
  scenario([], async ({ database, queue, work, load, drained, evidence }) => {
    const proxy = await openProxy(database);
    const worker = await work({ url: proxy.url });
    const stop = load(() => ({ ms: 20, fails: Math.random() < 0.3 ? 1 : 0 }), {
      inFlight: 3,
      everyMs: 20,
    });
    // The server knows the scripts from now on, so that the worker sends their hashes.
    await eventually("jobs are settled", async () => (await queue.counts()).complete > 20);
    await worker.said("Retrying");
    let ms = 0;
    const cuts = { request: 0, response: 0 };
    for (const { sha1 } of [completeScript, changeScript, completeScript, changeScript]) {
      for (const loses of ["request", "response"] as const) {
        const request = await (loses === "request" ? proxy.loseRequest(sha1) : proxy.loseResponse(sha1));
        const keys = [
          ...new Set([...request.matchAll(/saq:job:default:([\w-]+)\r\n/g)].map(([, key = ""]) => key)),
        ];
        if (loses === "response")
          await eventually("the script was carried out", async () =>
            (await Promise.all(keys.map((key) => queue.job(key)))).every((job) => job?.status !== "active"),
          );
        proxy.cut();
        const cutAt = performance.now();
        cuts[loses]++;
        const { complete } = await queue.counts();
        await eventually(
          "jobs are settled again",
          async () => (await queue.counts()).complete > complete + 10,
        );
        ms = Math.max(ms, performance.now() - cutAt);
      }
    }
    await stop();
    await drained();
    expect((await worker.stop()).code).toBe(0);
    const seen = await evidence();
    report("connections cut in a settlement, 8 times", seen, ms);
    await proxy.close();
    return { ...seen, cuts };
  });

if (redisMissing) process.stderr.write(`Faults of Redis are not tested: ${redisMissing}.\n`);

(redisMissing ? describe.skip : describe)("a queue on Redis", () => {
  const scenarios = { killedWorkers, killedServer, pausedWorker, cutSettlements };
  const outcomes = {} as { [Name in keyof typeof scenarios]: ReturnType<(typeof scenarios)[Name]> };

  beforeAll(async () => {
    await loadRedisClient();
    for (const [name, play] of Object.entries(scenarios)) {
      const outcome = play();
      // The test that awaits the outcome fails. Without this handler an earlier rejection would be unhandled.
      outcome.catch(() => {});
      Object.assign(outcomes, { [name]: outcome });
    }
  });
  afterAll(endAllWorkers);

  it("loses no job and ends none twice when connections are cut in the middle of a settlement", async () => {
    const { lost, endedTwice, runs, attempts, cuts } = await outcomes.cutSettlements;
    expect(cuts).toEqual({ request: 4, response: 4 });
    expect({ lost, endedTwice }).toEqual({ lost: [], endedTwice: [] });
    // A settlement that was sent again was recorded once, so each attempt is one run.
    expect([...runs].filter(([key, count]) => count !== attempts.get(key))).toEqual([]);
  }, 600_000);

  it("loses no job and ends none twice when the server is killed under load (appendfsync always)", async () => {
    const { lost, endedTwice, runs } = await outcomes.killedServer;
    expect({ lost, endedTwice }).toEqual({ lost: [], endedTwice: [] });
    expect(Math.max(...runs.values())).toBeLessThanOrEqual(2);
  }, 600_000);

  it("loses no job and ends none twice when workers are killed under load", async () => {
    const { lost, endedTwice, recovered, ranAgainWithoutReason } = await outcomes.killedWorkers;
    expect({ lost, endedTwice, ranAgainWithoutReason }).toEqual({
      lost: [],
      endedTwice: [],
      ranAgainWithoutReason: [],
    });
    expect(recovered).toBeGreaterThanOrEqual(2);
  }, 600_000);

  it("changes nothing by a worker that wakes after 30 s, and whose jobs others have taken over", async () => {
    const { lost, endedTwice, runs, held, before, after, refused, last, heir } = await outcomes.pausedWorker;
    expect({ lost, endedTwice }).toEqual({ lost: [], endedTwice: [] });
    expect(held.map((key) => runs.get(key))).toEqual(held.map(() => 2));
    expect(after).toEqual(before);
    expect(refused).toBe(held.length);
    for (const document of last)
      expect(document).toMatchObject({ status: "complete", result: { pid: heir }, meta: { lost: 1 } });
  }, 600_000);
});
