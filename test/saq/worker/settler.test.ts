/** What a worker keeps of settlements that could not be recorded, and for how long. */
import { expect, it } from "@jest/globals";
import type { Broker } from "../../../templates/backend/saq/broker.js";
import type { Claim } from "../../../templates/backend/saq/core/claim.js";
import { claimedFields } from "../../../templates/backend/saq/core/stored-job.js";
import { silentLogger } from "../../../templates/backend/saq/logger.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { Attempt, type AttemptHost } from "../../../templates/backend/saq/worker/attempt/attempt.js";
import { ClaimedJobs } from "../../../templates/backend/saq/worker/claimed-jobs.js";
import { Report } from "../../../templates/backend/saq/worker/settlement/report.js";
import { Settler } from "../../../templates/backend/saq/worker/settlement/settler.js";
import { claim, openQueue, rowOf, settlement, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const host = {} as AttemptHost;
const workerId = "worker-1";

/** A job that has run, and whose settlement could not be recorded. */
async function unrecordedJob() {
  const queue = openQueue(database, { hello: () => "hi" });
  const { key } = await queue.enqueue("hello", undefined, { timeout: 0 });
  const [claimed] = await claim(queue, { workerId });
  if (!claimed) throw new Error("the job was not claimed");
  const broker: Pick<Broker, "settle"> = {
    settle: (_settlement, decided) => decided.reject(new Error("cannot be recorded")),
  };
  const settler = new Settler({
    broker: broker as Broker,
    queueName: queue.name,
    workerId,
    report: new Report(silentLogger, queue.counters),
    hooks: null,
    logger: silentLogger,
    onStored: () => {},
    onUncongested: () => {},
  });
  const claimedJobs = new ClaimedJobs({
    queue: queue as unknown as Queue,
    workerId,
    logger: silentLogger,
    settler,
    host,
  });
  const attempt = new Attempt(host, claimed, claimedFields(claimed, { queueName: queue.name, workerId }));
  settler.settle(attempt, settlement(claimed, "complete"), { kind: "returned", value: "hi" });
  return {
    queue,
    key,
    claimed,
    reconcile: (held: Claim[] = []) => claimedJobs.reconcile(() => held),
    unrecorded: () => [...settler.unrecordedClaims()].map((unrecorded) => unrecorded.key),
  };
}

type Unrecorded = Awaited<ReturnType<typeof unrecordedJob>>;

it.each<[string, (job: Unrecorded) => Promise<unknown>]>([
  ["finished it", ({ queue, key }) => queue.finish(key, "complete")],
  ["deleted its row", ({ key }) => database.query("delete from saq_jobs where key = $1", [key])],
  [
    "put it back into the queue",
    ({ queue, claimed }) => queue.broker.recordLost([claimed], { lostLimit: 3, failedTtl: 600 }),
  ],
])("an unrecorded claim is forgotten when another process has %s", async (_, end) => {
  const job = await unrecordedJob();
  await job.reconcile([job.claimed]);
  expect(job.unrecorded()).toEqual([job.key]);
  await end(job);
  expect(await job.reconcile()).toEqual([]);
  expect(job.unrecorded()).toEqual([]);
});

it("an unrecorded claim is forgotten although another job of the same claim still runs", async () => {
  const job = await unrecordedJob();
  const { token } = await database
    .query<{ token: number }>("select lock_key as token from saq_jobs where key = $1", [job.key])
    .then(([row]) => row ?? { token: 0 });
  const other = await job.queue.enqueue("hello", undefined, { timeout: 0 });
  await database.query("update saq_jobs set status = 'active', lock_key = $2 where key = $1", [
    other.key,
    token,
  ]);
  await job.queue.finish(job.key, "complete");
  await job.reconcile([{ ...job.claimed, key: other.key }]);
  expect((await rowOf(database, other.key))?.status).toBe("active");
  expect(job.unrecorded()).toEqual([]);
});

it("an unrecorded claim is kept until its own worker has put the job back, which counts as a loss", async () => {
  const job = await unrecordedJob();
  expect(await job.reconcile()).toEqual([job.key]);
  expect(await job.queue.job(job.key)).toMatchObject({ status: "queued", meta: { lost: 1 } });
  expect(job.unrecorded()).toEqual([]);
});
