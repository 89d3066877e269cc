/** The spans of scheduled tasks: how their ticks are stored, and how they run. */

import { tracingChannel } from "node:diagnostics_channel";
import { expect, it } from "@jest/globals";
import { cronJob } from "../../../templates/backend/saq/config/index.js";
import type { EnqueueMessage } from "../../../templates/backend/saq/index.js";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { Scheduler } from "../../../templates/backend/saq/worker/scheduling/scheduler.js";
import { LogBook } from "../support/log-book.js";
import { useTelemetry } from "../support/otel.js";
import { closeAfterTest, openQueue, rowOf, startWorker, until, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const telemetry = useTelemetry();

const spansNamed = (name: string) => telemetry.spans().filter((span) => span.name === name);

/** Opens a queue and the scheduler of a worker, whose rounds the test calls. */
async function scheduled(cron: string, names: readonly string[]) {
  const queue = openQueue(
    database,
    { nothing: () => null },
    { scheduledTasks: names.map((name) => cronJob("nothing", { cron, name })) },
  );
  await queue.connect();
  const entries = queue.config.scheduledTasks ?? [];
  return { queue, scheduler: new Scheduler(queue as unknown as Queue, entries, new LogBook()) };
}

it("S-51: a tick has a publish span; its attempt is a trace of its own with a link to it", async () => {
  const queue = openQueue(
    database,
    { nothing: () => null },
    { scheduledTasks: [cronJob("nothing", { cron: "* * * * * *", name: "ticks" })] },
  );
  await startWorker(queue);
  const find = () => {
    const [process] = spansNamed(`process ${queue.name}`);
    const [link] = process?.links ?? [];
    const publish = spansNamed(`publish ${queue.name}`).find(
      (span) => span.spanContext().spanId === link?.context.spanId,
    );
    return { process, link, publish };
  };
  await until(async () => find().publish !== undefined);
  const { process, link, publish } = find();
  expect(link?.attributes).toEqual({ "saq.link": "publish" });
  expect([process?.parentSpanContext, publish?.parentSpanContext]).toEqual([undefined, undefined]);
  expect(publish?.attributes).toMatchObject({
    "messaging.message.id": "cron:ticks",
    "saq.job.function": "nothing",
  });
  expect(publish?.attributes).not.toHaveProperty("saq.enqueue.refusal");
});

it("the ticks of one round have one publish span, and one message on the channel", async () => {
  const { queue, scheduler } = await scheduled("0 3 1 1 *", ["new-year", "other"]);
  const messages: EnqueueMessage[] = [];
  const channel = tracingChannel<unknown, EnqueueMessage>("saq:enqueue");
  const onEnd = (message: unknown) => void messages.push(message as EnqueueMessage);
  channel.asyncEnd.subscribe(onEnd);
  closeAfterTest({ close: async () => void channel.asyncEnd.unsubscribe(onEnd) });
  await scheduler.round();
  await scheduler.round();
  const [publish, ...others] = spansNamed(`publish ${queue.name}`);
  expect(others).toEqual([]);
  expect(publish?.attributes).toMatchObject({ "messaging.batch.message_count": 2 });
  expect(messages.map(({ jobs, result }) => [jobs.map(({ task }) => task), result])).toEqual([
    [
      ["nothing", "nothing"],
      [
        { key: "cron:new-year", refused: null },
        { key: "cron:other", refused: null },
      ],
    ],
  ]);
  const { meta } = JSON.parse(String((await rowOf(database, "cron:other"))?.text));
  expect(meta).toEqual({
    schedule: "other",
    _otel_context: {
      traceparent: expect.stringContaining(String(publish?.spanContext().spanId)),
      saq_bulk: "true",
    },
  });
});

it("a paused tick is tried once, and again when the pause is over", async () => {
  const { queue, scheduler } = await scheduled("0 3 1 2 *", ["paused"]);
  await queue.schedules.pause("paused");
  for (let round = 0; round < 3; round++) await scheduler.round();
  const refusals = () =>
    spansNamed(`publish ${queue.name}`).map(({ attributes }) => attributes["saq.enqueue.refusal"]);
  expect(refusals()).toEqual(["paused"]);
  await queue.schedules.resume("paused");
  await scheduler.round();
  expect(refusals()).toEqual(["paused", undefined]);
  expect((await rowOf(database, "cron:paused"))?.status).toBe("queued");
});
