/** The metrics of OpenTelemetry, with a real SDK. */
import { expect, it } from "@jest/globals";
import { type DataPoint, DataPointType, type Histogram, type MetricData } from "@opentelemetry/sdk-metrics";
import { useTelemetry } from "../support/otel.js";
import { openQueue, startWorker, until, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const telemetry = useTelemetry();

/** Returns the values of a metric for one queue, with the attributes that the test names. */
function values(metric: MetricData | undefined, queue: string, names: readonly string[] = []): unknown[][] {
  const points = (metric?.dataPoints ?? []) as DataPoint<number | Histogram>[];
  return points
    .filter(({ attributes }) => attributes["messaging.destination.name"] === queue)
    .map(({ attributes, value }) => [
      ...names.map((name) => attributes[name]),
      typeof value === "number" ? value : value.count,
    ]);
}

it("counts and times what is published and processed, by the conventions", async () => {
  const queue = openQueue(database, {
    given: () => null,
    bad: () => {
      throw new TypeError("boom");
    },
  });
  const { ended } = await startWorker(queue);
  const good = await queue.enqueue("given");
  await ended(good.key);
  const bad = await queue.enqueue("bad", undefined, { retries: 2 });
  await ended(bad.key, 2);
  const [one, two] = await queue.enqueueMany([{ task: "given" }, { task: "given" }]);
  for (const job of [one, two]) await ended(String(job?.key));
  await queue.enqueue("given", undefined, { timeout: -1 }).catch(() => {});

  const metrics = await telemetry.metrics();
  const shown = (name: string) =>
    values(metrics.get(name), queue.name, [
      "messaging.operation.name",
      "messaging.operation.type",
      "error.type",
    ]);
  expect(shown("messaging.client.sent.messages")).toEqual([
    ["publish", "send", undefined, 4],
    ["publish", "send", "invalid_job", 1],
  ]);
  const durations = shown("messaging.client.operation.duration");
  const durationsOf = (operation: string) => durations.filter(([name]) => name === operation);
  expect(durationsOf("publish")).toEqual([
    ["publish", "send", undefined, 3],
    ["publish", "send", "invalid_job", 1],
  ]);
  expect(durationsOf("settle")).toEqual([["settle", "settle", undefined, 5]]);
  const [[, claimType, claimError, claims], ...others] = durationsOf("claim") as [
    [string, string, undefined, number],
  ];
  expect([claimType, claimError, others]).toEqual(["receive", undefined, []]);
  expect(claims).toBeGreaterThanOrEqual(3);
  expect(shown("messaging.client.consumed.messages")).toEqual([["process", "process", undefined, 5]]);
  expect(shown("messaging.process.duration")).toEqual([
    ["process", "process", undefined, 3],
    ["process", "process", "TypeError", 2],
  ]);
  const duration = metrics.get("messaging.process.duration");
  expect(duration?.descriptor.unit).toBe("s");
  if (duration?.dataPointType !== DataPointType.HISTOGRAM) throw new Error("it is not a histogram");
  expect(duration.dataPoints[0]?.value.buckets.boundaries).toEqual([
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
  ]);
  expect(JSON.stringify([...metrics.values()])).not.toContain(good.key);
});

it("gauges show the jobs by state, the age of the oldest waiting job, and the slots of the worker", async () => {
  const open: (() => void)[] = [];
  const queue = openQueue(
    database,
    { waits: () => new Promise<void>((resolve) => open.push(resolve)), done: () => null },
    { concurrency: 2, prefetch: false },
  );
  const { worker, ended } = await startWorker(queue);
  const done = await queue.enqueue("done");
  await ended(done.key);
  await queue.enqueueMany(Array.from({ length: 3 }, () => ({ task: "waits" as const })));
  await queue.enqueue("waits", undefined, { scheduled: new Date(Date.now() + 3_600_000) });
  await until(async () => open.length === 2);
  // The due time of a job has whole seconds, so its age is measured after more than one.
  await new Promise((resolve) => setTimeout(resolve, 2_100));

  const metrics = await telemetry.metrics();
  const jobs = values(metrics.get("saq.queue.jobs"), queue.name, ["saq.job.state"]);
  expect(Object.fromEntries(jobs)).toEqual({
    queued: 1,
    scheduled: 1,
    active: 2,
    aborting: 0,
    aborted: 0,
    failed: 0,
    complete: 1,
  });
  const [[age]] = values(metrics.get("saq.queue.oldest_age"), queue.name) as [[number]];
  expect(age).toBeGreaterThan(1.9);
  expect(age).toBeLessThan(60);
  expect(values(metrics.get("saq.worker.slots"), queue.name, ["saq.slot.state"])).toEqual([
    ["used", 2],
    ["free", 0],
  ]);

  void worker.stop({ grace: 0 });
  for (const end of open) end();
  await worker.finished;
  expect(values((await telemetry.metrics()).get("saq.worker.slots"), queue.name)).toEqual([[0], [0]]);
});

it("gauges are shown although the SDK was registered after the worker had started", async () => {
  await telemetry.stop();
  const queue = openQueue(database, { done: () => null }, { enableOtel: true });
  const { ended } = await startWorker(queue);
  telemetry.start();
  await ended((await queue.enqueue("done")).key);
  const metrics = await telemetry.metrics();
  expect(values(metrics.get("saq.worker.slots"), queue.name, ["saq.slot.state"])).toEqual([
    ["used", 0],
    ["free", 10],
  ]);
  expect(values(metrics.get("saq.queue.jobs"), queue.name, ["saq.job.state"])).toContainEqual([
    "complete",
    1,
  ]);
});
