/** The spans of tasks that run in threads, with a real SDK. */
import { describe, expect, it, jest } from "@jest/globals";
import * as otel from "@opentelemetry/api";
import { type ShownSpan, traceText } from "../../support/trace-text.js";
import { useTelemetry } from "../support/otel.js";
import { traces } from "../support/processes/traced-thread-sdk.js";
import { enqueues } from "../support/processes/traced-thread-tasks.js";
import { openQueue, startWorker, useDatabase } from "../support/scenario.js";
import { shownSpan } from "../support/shown-span.js";

jest.setTimeout(600_000);

const database = useDatabase();
const telemetry = useTelemetry();

/** The start of a thread counts as part of its first job, and takes long on a busy machine. */
const defaults = { timeout: 120 };

const shownAttributes = ["saq.job.function", "saq.job.status"];
const processes = (queue: { name: string }, function_: string) =>
  telemetry
    .spans()
    .filter(
      ({ name, attributes }) =>
        name === `process ${queue.name}` && attributes["saq.job.function"] === function_,
    );

describe("a task in a thread without an SDK", () => {
  it("belongs to the trace with the jobs that it enqueues, inside of the spans of the hooks around it", async () => {
    const tracer = otel.trace.getTracer("test");
    const queue = openQueue(
      database,
      { enqueues, child: () => null },
      {
        name: "threads",
        defaults,
        aroundProcess: (_ctx: unknown, next: () => Promise<unknown>) =>
          tracer.startActiveSpan("hook", (span) => next().finally(() => span.end())),
      },
    );
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("enqueues", { url: database.url, name: queue.name, jobs: 1 });
    await ended(job.key);
    const [child] = (await job.refresh()).result as string[];
    await ended(String(child));
    expect(traceText(telemetry.spans().map(shownSpan), shownAttributes)).toEqual([
      "A publish threads PRODUCER unset saq.job.function=enqueues",
      "  B process threads CONSUMER unset saq.job.function=enqueues saq.job.status=complete link publish A",
      "    C hook INTERNAL unset",
      "      D process threads CONSUMER unset saq.job.function=child saq.job.status=complete link publish C",
      "        E hook INTERNAL unset",
      "        F settle threads CLIENT unset saq.job.function=child saq.job.status=complete",
      "    G settle threads CLIENT unset saq.job.function=enqueues saq.job.status=complete",
    ]);
  });

  it("several jobs that it enqueues in one call have traces of their own, with a link to it", async () => {
    const queue = openQueue(database, { enqueues, child: () => null }, { defaults });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("enqueues", { url: database.url, name: queue.name, jobs: 2 });
    await ended(job.key);
    for (const key of (await job.refresh()).result as string[]) await ended(key);
    const [parent] = processes(queue, "enqueues");
    const children = processes(queue, "child");
    expect(children.map(({ parentSpanContext }) => parentSpanContext)).toEqual([undefined, undefined]);
    expect(children.flatMap(({ links }) => links.map(({ context }) => context.spanId))).toEqual(
      children.map(() => parent?.spanContext().spanId),
    );
  });

  it.each([
    [true, "the parent of the jobs is the attempt"],
    [false, "the jobs have no trace to continue"],
  ])("a queue in the thread with enableOtel: %s: %s", async (enableOtel) => {
    const queue = openQueue(database, { enqueues, child: () => null }, { defaults });
    const { ended } = await startWorker(queue);
    const target = { url: database.url, name: queue.name, jobs: 1, enableOtel };
    const job = await queue.enqueue("enqueues", target);
    await ended(job.key);
    for (const key of (await job.refresh()).result as string[]) await ended(key);
    const [parent] = processes(queue, "enqueues");
    const [child] = processes(queue, "child");
    expect(child?.parentSpanContext?.spanId).toBe(enableOtel ? parent?.spanContext().spanId : undefined);
  });
});

it("a task in a thread with an SDK: its spans there are children of the attempt, and it sees the baggage", async () => {
  const queue = openQueue(database, { traces, child: () => null }, { name: "sdk", defaults });
  const { ended } = await startWorker(queue);
  const baggage = otel.propagation.createBaggage({ tenant: { value: "seven" } });
  const context = otel.propagation.setBaggage(otel.context.active(), baggage);
  const target = { url: database.url, name: "elsewhere", jobs: 1 };
  const job = await otel.context.with(context, () => queue.enqueue("traces", target));
  await ended(job.key);
  const { spans, tenant } = (await job.refresh()).result as { spans: ShownSpan[]; tenant: string };
  expect(tenant).toBe("seven");
  expect(traceText([...telemetry.spans().map(shownSpan), ...spans], shownAttributes)).toEqual([
    "A publish sdk PRODUCER unset saq.job.function=traces",
    "  B process sdk CONSUMER unset saq.job.function=traces saq.job.status=complete link publish A",
    "    C compute INTERNAL unset",
    "    D publish elsewhere PRODUCER unset saq.job.function=child",
    "    E settle sdk CLIENT unset saq.job.function=traces saq.job.status=complete",
  ]);
});
