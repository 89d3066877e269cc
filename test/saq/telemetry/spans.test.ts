/** The spans of OpenTelemetry, with a real SDK (S-50 to S-54, D-80). */
import { describe, expect, it } from "@jest/globals";
import * as otel from "@opentelemetry/api";
import { NoRetry } from "../../../templates/backend/saq/tasks/no-retry.js";
import type { Context, JobContext } from "../../../templates/backend/saq/tasks/task.js";
import type { OtelApi } from "../../../templates/backend/saq/telemetry/otel-api.js";
import { traceText } from "../../support/trace-text.js";
import { useTelemetry } from "../support/otel.js";
import { insertRow, openQueue, rowOf, startWorker, until, useDatabase } from "../support/scenario.js";
import { shownSpan } from "../support/shown-span.js";
import { itOnTables } from "../support/test-broker.js";

const database = useDatabase();
const telemetry = useTelemetry();

/** Compiles only if the engine's own types of the package match those of the package. */
otel satisfies OtelApi;

const tracer = otel.trace.getTracer("test");

/** Calls `work` inside of a span, as the instrumentation of a web server does. Returns its result and the span. */
async function inSpan<T>(name: string, work: () => Promise<T>): Promise<{ result: T; span: otel.Span }> {
  return tracer.startActiveSpan(name, async (span) => {
    try {
      return { result: await work(), span };
    } finally {
      span.end();
    }
  });
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const metaOf = async (key: string) => JSON.parse((await rowOf(database, key))?.text ?? "{}").meta;
const spansNamed = (name: string) => telemetry.spans().filter((span) => span.name === name);
/** The server of the test's database, as the attributes of spans and metrics show it. */
const server = () => {
  const { hostname, port } = new URL(database.url);
  return { "server.address": hostname, "server.port": Number(port) };
};
const activeTraceId = () => otel.trace.getActiveSpan()?.spanContext().traceId ?? null;

describe("the spans of one job", () => {
  it("S-50, S-51, S-52: publish, process and settle have the conventions' names, kinds and attributes, in one trace", async () => {
    const queue = openQueue(database, {
      given: async () => {
        await sleep(2);
        return activeTraceId();
      },
    });
    const { ended, worker } = await startWorker(queue);
    const { result: job, span: request } = await inSpan("POST /orders", () => queue.enqueue("given"));
    await ended(job.key);
    await until(async () => spansNamed(`process ${queue.name}`).length === 1);
    const [publish] = spansNamed(`publish ${queue.name}`);
    const [process] = spansNamed(`process ${queue.name}`);
    const [settle] = spansNamed(`settle ${queue.name}`);
    const { traceId } = request.spanContext();
    const spans = [publish, process, settle];
    expect(spans.map((span) => span?.spanContext().traceId)).toEqual([traceId, traceId, traceId]);
    expect((await job.refresh()).result).toBe(traceId);
    expect(publish?.parentSpanContext?.spanId).toBe(request.spanContext().spanId);
    expect(process?.parentSpanContext?.spanId).toBe(publish?.spanContext().spanId);
    expect(settle?.parentSpanContext?.spanId).toBe(process?.spanContext().spanId);
    const { PRODUCER, CONSUMER, CLIENT } = otel.SpanKind;
    expect(spans.map((span) => span?.kind)).toEqual([PRODUCER, CONSUMER, CLIENT]);
    expect(spans.map((span) => span?.status)).toEqual([{ code: 0 }, { code: 0 }, { code: 0 }]);
    expect(spans.map((span) => span?.events)).toEqual([[], [], []]);
    const common = { "messaging.system": "saq", "messaging.destination.name": queue.name, ...server() };
    expect(publish?.attributes).toEqual({
      ...common,
      "messaging.operation.name": "publish",
      "messaging.operation.type": "send",
      "messaging.message.id": job.key,
      "saq.job.function": "given",
    });
    const attempt = {
      ...common,
      "messaging.message.id": job.key,
      "messaging.client.id": worker.workerId,
      "saq.job.function": "given",
      "saq.job.attempts": 1,
      "saq.job.status": "complete",
    };
    expect(process?.attributes).toEqual({
      ...attempt,
      "messaging.operation.name": "process",
      "messaging.operation.type": "process",
    });
    expect(settle?.attributes).toEqual({
      ...attempt,
      "messaging.operation.name": "settle",
      "messaging.operation.type": "settle",
      "saq.settle.result": "applied",
    });
    expect(process?.links.map(({ context, attributes }) => [context.spanId, attributes])).toEqual([
      [publish?.spanContext().spanId, { "saq.link": "publish" }],
    ]);
    expect((await metaOf(job.key))._otel_context).toEqual({
      traceparent: `00-${traceId}-${publish?.spanContext().spanId}-01`,
    });
  });

  it("a task that fails: error status, error.type, the exception, and the status of the job", async () => {
    const queue = openQueue(database, {
      bad: () => {
        throw Object.assign(new TypeError("boom"), { code: "E_BOOM" });
      },
      odd: () => 1n,
    });
    const { ended } = await startWorker(queue);
    const bad = await queue.enqueue("bad");
    await ended(bad.key);
    const odd = await queue.enqueue("odd");
    await ended(odd.key);
    const [first, second] = spansNamed(`process ${queue.name}`);
    expect(first?.status).toEqual({ code: otel.SpanStatusCode.ERROR, message: "boom" });
    expect(first?.attributes).toMatchObject({ "error.type": "E_BOOM", "saq.job.status": "failed" });
    expect(first?.events.map(({ name, attributes }) => [name, attributes?.["exception.message"]])).toEqual([
      ["exception", "boom"],
    ]);
    expect(second?.attributes).toMatchObject({
      "error.type": "InvalidResultError",
      "saq.job.status": "failed",
    });
  });

  it("NoRetry and its subclasses have their own error.type; a snooze leaves the status unset", async () => {
    class CardRefused extends NoRetry {
      readonly code = "E_CARD";
    }
    const queue = openQueue(database, {
      bad: () => {
        throw new CardRefused("expired");
      },
      polls: ({ job, snooze }: Context) => {
        if (job.meta.snoozes === undefined) throw snooze(0);
      },
    });
    const { ended } = await startWorker(queue);
    const bad = await queue.enqueue("bad", undefined, { retries: 2 });
    await ended(bad.key);
    const polls = await queue.enqueue("polls");
    await ended(polls.key, 2);
    const shown = spansNamed(`process ${queue.name}`).map(({ status, attributes, events }) => [
      status.code,
      attributes["saq.job.status"],
      attributes["saq.job.attempts"],
      attributes["error.type"],
      events.map((event) => event.attributes?.["exception.type"]),
    ]);
    expect(shown).toEqual([
      [2, "failed", 1, "NoRetry", ["E_CARD"]],
      [0, "queued", 1, undefined, []],
      [0, "complete", 1, undefined, []],
    ]);
    const [, first, second] = spansNamed(`process ${queue.name}`);
    expect(
      second?.links.map(({ context, attributes }) => [context.spanId, attributes?.["saq.link"]]),
    ).toContainEqual([first?.spanContext().spanId, "first_attempt"]);
  });

  it("D-80: an aborted job and one that a shutdown ends leave the status unset; a timeout is an error", async () => {
    const queue = openQueue(
      database,
      {
        waits: ({ signal }: Context) =>
          new Promise((resolve) => {
            signal.addEventListener("abort", resolve);
          }),
      },
      { cancellationHardDeadline: 0.2 },
    );
    const { ended, worker } = await startWorker(queue);
    const running = (key: string) => until(async () => worker.runningKeys.includes(key));
    const aborted = await queue.enqueue("waits");
    await running(aborted.key);
    await queue.abort(aborted.key);
    await ended(aborted.key);
    const slow = await queue.enqueue("waits", undefined, { timeout: 0.1 });
    await ended(slow.key);
    const stopped = await queue.enqueue("waits");
    await running(stopped.key);
    await worker.stop({ grace: 0 });
    const shown = spansNamed(`process ${queue.name}`).map(({ status, attributes }) => [
      status.code,
      attributes["saq.job.status"],
      attributes["error.type"],
    ]);
    expect(shown).toEqual([
      [0, "aborted", undefined],
      [2, "failed", "TimeoutError"],
      [0, "queued", undefined],
    ]);
  });

  it.each(["beforeProcess", "aroundProcess", "afterProcess"] as const)(
    "the span ends once when a hook of %s throws, and the hook runs inside of it",
    async (name) => {
      let seen: string | null = null;
      const queue = openQueue(
        database,
        { given: () => "well" },
        {
          [name]: () => {
            seen = activeTraceId();
            throw new Error("hook");
          },
        },
      );
      const { ended, worker } = await startWorker(queue);
      const job = await queue.enqueue("given");
      await ended(job.key);
      await worker.stop();
      const [span, ...others] = spansNamed(`process ${queue.name}`);
      expect(others).toEqual([]);
      expect(span?.status.code).toBe(name === "afterProcess" ? 0 : 2);
      expect(seen).toBe(span?.spanContext().traceId);
    },
  );

  it("a settlement that storage refuses has the reason, and one that fails has the error", async () => {
    let release: () => void = () => {};
    const queue = openQueue(
      database,
      {
        waits: () =>
          new Promise<void>((resolve) => {
            release = resolve;
          }),
      },
      // No look for aborted jobs before the end of the test: the settlement itself finds the abort.
      { timers: { abort: 1_000 }, pollInterval: 0.1 },
    );
    const { ended, worker } = await startWorker(queue);
    const start = async () => {
      const job = await queue.enqueue("waits");
      await until(async () => worker.runningKeys.includes(job.key));
      return job;
    };
    const aborted = await start();
    await queue.abort(aborted.key);
    release();
    await ended(aborted.key);
    await start();
    const settle = queue.broker.settle.bind(queue.broker);
    queue.broker.settle = (_settlement, decided) => decided.reject(new TypeError("no answer"));
    release();
    await until(async () => spansNamed(`settle ${queue.name}`).length === 2);
    queue.broker.settle = settle;
    expect(
      spansNamed(`settle ${queue.name}`).map(({ status, attributes }) => [
        status.code,
        attributes["saq.job.status"],
        attributes["saq.settle.result"],
        attributes["error.type"],
      ]),
    ).toEqual([
      [0, "complete", "aborted", undefined],
      [2, "complete", undefined, "TypeError"],
    ]);
  });

  it("a task that never ends: its span ends with the attempt, at the hard deadline", async () => {
    let release: (value: null) => void = () => {};
    const queue = openQueue(
      database,
      {
        deaf: () =>
          new Promise<null>((resolve) => {
            release = resolve;
          }),
      },
      { cancellationHardDeadline: 0.1 },
    );
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("deaf", undefined, { timeout: 0.1 });
    await ended(job.key);
    expect(spansNamed(`process ${queue.name}`).map(({ attributes }) => attributes["error.type"])).toEqual([
      "TimeoutError",
    ]);
    release(null);
  });

  it("an enqueue that is refused or fails: why, and the caller gets the same as without spans", async () => {
    const queue = openQueue(database, { given: () => null });
    await queue.enqueue("given", undefined, { key: "taken" });
    expect(await queue.enqueue("given", undefined, { key: "taken" })).toBeNull();
    await expect(queue.enqueue("given", undefined, { timeout: -1 })).rejects.toMatchObject({
      code: "invalid_job",
    });
    const [, refused, failed] = spansNamed(`publish ${queue.name}`);
    expect(refused?.status.code).toBe(0);
    expect(refused?.attributes).toMatchObject({ "saq.enqueue.refusal": "key_alive" });
    expect(failed?.status.code).toBe(2);
    expect(failed?.attributes).toMatchObject({ "error.type": "invalid_job" });
  });

  it("a job that is claimed ahead has no span until its task starts", async () => {
    const open: (() => void)[] = [];
    const queue = openQueue(
      database,
      { quick: () => null, waits: () => new Promise<void>((resolve) => open.push(resolve)) },
      { concurrency: 1 },
    );
    const started: string[] = [];
    const provider = otel.trace.getTracer("saq");
    const { startSpan } = Object.getPrototypeOf(provider) as typeof provider;
    Object.getPrototypeOf(provider).startSpan = function (this: unknown, name: string, ...rest: unknown[]) {
      started.push(name);
      return (startSpan as (...given: unknown[]) => unknown).call(this, name, ...rest);
    };
    try {
      const { worker } = await startWorker(queue);
      await queue.map(
        "quick",
        Array.from({ length: 20 }, () => undefined),
      );
      await queue.enqueueMany(Array.from({ length: 5 }, () => ({ task: "waits" as const })));
      await until(async () => open.length === 1 && (await queue.count("active")) > 1);
      expect(started.filter((name) => name === `process ${queue.name}`).length).toBe(21);
      const stopped = worker.stop({ grace: 0 });
      for (const end of open) end();
      await stopped;
      // The jobs that were given back have no span either.
      expect(started.filter((name) => name === `settle ${queue.name}`).length).toBe(21);
    } finally {
      Object.getPrototypeOf(provider).startSpan = startSpan;
    }
  });
});

describe("the spans of several jobs", () => {
  it("a request, its job, a child job and the child's retry are one trace; the retry links to the first attempt", async () => {
    const child = ({ job }: JobContext) => {
      if (job.attempts < 3) throw new Error(`attempt ${job.attempts}`);
    };
    const queue = openQueue(
      database,
      {
        parent: async ({ enqueue }: Context) => (await enqueue(child, undefined, { retries: 3 }))?.id,
        child,
      },
      { name: "orders", aroundProcess: (_ctx: unknown, next: () => unknown) => next() },
    );
    const { ended } = await startWorker(queue);
    const { result: job } = await inSpan("POST /orders", () => queue.enqueue("parent"));
    await ended(job.key);
    const key = String((await job.refresh()).result);
    await ended(key, 3);
    expect(
      traceText(telemetry.spans().map(shownSpan), [
        "saq.job.function",
        "saq.job.attempts",
        "saq.job.status",
        "saq.settle.result",
      ]),
    ).toEqual([
      "A POST /orders INTERNAL unset",
      "  B publish orders PRODUCER unset saq.job.function=parent",
      "    C process orders CONSUMER unset saq.job.function=parent saq.job.attempts=1 saq.job.status=complete link publish B",
      "      D publish orders PRODUCER unset saq.job.function=child",
      "        E process orders CONSUMER error saq.job.function=child saq.job.attempts=1 saq.job.status=queued link publish D",
      "          F settle orders CLIENT unset saq.job.function=child saq.job.attempts=1 saq.job.status=queued saq.settle.result=applied",
      "        G process orders CONSUMER error saq.job.function=child saq.job.attempts=2 saq.job.status=queued link publish D link first_attempt E",
      "          H settle orders CLIENT unset saq.job.function=child saq.job.attempts=2 saq.job.status=queued saq.settle.result=applied",
      "        I process orders CONSUMER unset saq.job.function=child saq.job.attempts=3 saq.job.status=complete link publish D link first_attempt E",
      "          J settle orders CLIENT unset saq.job.function=child saq.job.attempts=3 saq.job.status=complete saq.settle.result=applied",
      "      K settle orders CLIENT unset saq.job.function=parent saq.job.attempts=1 saq.job.status=complete saq.settle.result=applied",
    ]);
  });

  it("a bulk is one span, and each of its attempts is a trace of its own with a link to it", async () => {
    const queue = openQueue(database, { given: () => null });
    const { ended } = await startWorker(queue);
    const { result: jobs } = await inSpan("import", () =>
      queue.enqueueMany(
        Array.from({ length: 3 }, (_, n) => ({ task: "given" as const, key: `bulk-${n % 2}` })),
      ),
    );
    for (const job of jobs) if (job) await ended(job.key);
    const [publish, ...others] = spansNamed(`publish ${queue.name}`);
    expect(others).toEqual([]);
    expect(publish?.attributes).toMatchObject({
      "messaging.batch.message_count": 3,
      "saq.job.function": "given",
      "saq.enqueue.refused": 1,
    });
    const processes = spansNamed(`process ${queue.name}`);
    expect(processes.map(({ parentSpanContext }) => parentSpanContext)).toEqual([undefined, undefined]);
    expect(new Set(processes.map((span) => span.spanContext().traceId)).size).toBe(2);
    expect(processes.flatMap(({ links }) => links.map(({ context }) => context.spanId))).toEqual(
      processes.map(() => publish?.spanContext().spanId),
    );
  });

  it("apply, map of one item and batch publish inside of the caller's trace", async () => {
    const queue = openQueue(database, { given: () => activeTraceId() });
    const { ended } = await startWorker(queue);
    const { result, span } = await inSpan("caller", async () => {
      const applied = await queue.apply("given");
      const [mapped] = await queue.map("given", [undefined]);
      const batched = await queue.batch(() => queue.enqueue("given"));
      return { applied, mapped, batched };
    });
    await ended(result.batched.key);
    const { traceId } = span.spanContext();
    const { applied, mapped, batched } = result;
    expect([applied, mapped, (await batched.refresh()).result]).toEqual([traceId, traceId, traceId]);
  });

  itOnTables("a client's transaction publishes inside of the caller's trace", async () => {
    const queue = openQueue(database, { given: () => activeTraceId() });
    const { ended } = await startWorker(queue);
    const client = await database.connect();
    const { result: job, span } = await inSpan("caller", async () => {
      await client.query("begin");
      const own = await queue.enqueue("given", undefined, { client });
      await client.query("commit");
      return own;
    });
    await ended(job.key);
    expect((await job.refresh()).result).toBe(span.spanContext().traceId);
  });
});

describe("the trace that a job carries", () => {
  const litestar = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

  it("S-52: a job that Litestar-SAQ has stored continues its trace, with its baggage", async () => {
    const queue = openQueue(database, {
      given: () => [activeTraceId(), otel.propagation.getActiveBaggage()?.getEntry("tenant")?.value],
    });
    const { ended } = await startWorker(queue);
    // The engine's own enqueue would store another trace, so the document is written as Python writes it.
    await queue.connect();
    const meta = {
      _otel_context: { traceparent: litestar, tracestate: "vendor=1", baggage: "tenant=seven" },
    };
    const job = { function: "given", queue: queue.name, key: "python", queued: 1, status: "queued", meta };
    await insertRow(database, { key: "python", queue: queue.name, document: JSON.stringify(job) });
    await database.stored.announce(queue.name);
    await ended("python");
    const [span] = spansNamed(`process ${queue.name}`);
    expect(span?.parentSpanContext).toMatchObject({ spanId: "b7ad6b7169203331", isRemote: true });
    expect((await queue.job("python"))?.result).toEqual(["0af7651916cd43dd8448eb211c80319c", "seven"]);
  });

  it.each([
    ["an empty object", {}],
    ["a text", "00-nothing"],
    ["null", null],
    ["a list", [litestar]],
    ["members that are no texts", { traceparent: 7, baggage: { a: 1 }, tracestate: [1] }],
    ["a broken traceparent", { traceparent: "00-zz-zz-01" }],
  ])(
    "a carrier that is %s is none: the attempt has a trace of its own, and the job runs",
    async (_, carrier) => {
      const queue = openQueue(database, { given: () => "well" });
      await queue.connect();
      const key = `carrier-${queue.name}`;
      const meta = { _otel_context: carrier, otelFirstAttempt: carrier };
      const job = { function: "given", queue: queue.name, key, queued: 1, status: "queued", meta };
      await insertRow(database, { key, queue: queue.name, document: JSON.stringify(job) });
      const { ended } = await startWorker(queue);
      expect(await ended(key)).toBe("Finished given");
      const [span] = spansNamed(`process ${queue.name}`);
      expect([span?.parentSpanContext, span?.links]).toEqual([undefined, []]);
    },
  );

  it("without an active trace a job still gets the trace of its publish span, never an empty carrier", async () => {
    const queue = openQueue(database, { given: () => null });
    const job = await queue.enqueue("given", undefined, { meta: { own: 1 } });
    const [publish] = spansNamed(`publish ${queue.name}`);
    expect(publish?.parentSpanContext).toBeUndefined();
    expect(await metaOf(job.key)).toEqual({
      own: 1,
      _otel_context: { traceparent: expect.stringContaining(String(publish?.spanContext().traceId)) },
    });
  });

  it("is kept when a task sets its meta, replaced when the job is enqueued anew, and so is the first attempt", async () => {
    const queue = openQueue(database, {
      given: async ({ job }: Context) => {
        if (job.attempts === 1) throw new Error("again");
        await job.update({ meta: { own: true } });
      },
    });
    const { ended } = await startWorker(queue);
    const job = await queue.enqueue("given", undefined, { retries: 2, key: "kept" });
    if (!job) throw new Error("the key is taken");
    const { _otel_context: first } = await metaOf("kept");
    await ended(job.key, 2);
    const after = await metaOf("kept");
    const attemptHistory = [expect.objectContaining({ attempt: 1 })];
    expect(after).toEqual({
      own: true,
      _otel_context: first,
      otelFirstAttempt: expect.any(String),
      attemptHistory,
    });
    await job.refresh();
    await job.enqueue({ scheduled: new Date(Date.now() + 3_600_000) });
    const anew = await metaOf("kept");
    expect(Object.keys(anew).sort()).toEqual(["_otel_context", "own"]);
    expect(anew._otel_context).not.toEqual(first);
  });

  it("a retry by hand starts without a link to an attempt of the previous run", async () => {
    const queue = openQueue(database, {
      bad: () => {
        throw new Error("no");
      },
    });
    const { ended, worker } = await startWorker(queue);
    const job = await queue.enqueue("bad", undefined, { retries: 2 });
    await ended(job.key, 2);
    await worker.stop();
    expect(await metaOf(job.key)).toHaveProperty("otelFirstAttempt");
    await queue.retry(job.key);
    expect(await metaOf(job.key)).not.toHaveProperty("otelFirstAttempt");
  });
});
