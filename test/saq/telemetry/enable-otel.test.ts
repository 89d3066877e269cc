/** The option `enableOtel`: true, false, or as the program has registered a provider (S-8, A-96). */
import { AsyncLocalStorage } from "node:async_hooks";
import { describe, expect, it } from "@jest/globals";
import * as otel from "@opentelemetry/api";
import { defineQueue, defineSaq } from "../../../templates/backend/saq/config/index.js";
import { createSaq } from "../../../templates/backend/saq/express/create-saq.js";
import { hasProvider, loadOtelApi, type OtelApi } from "../../../templates/backend/saq/telemetry/otel-api.js";
import { useTelemetry } from "../support/otel.js";
import { closeAfterTest, openQueue, rowOf, startWorker, until, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const telemetry = useTelemetry({ atStart: false });

const tasks = { given: () => null };
const names = () => telemetry.spans().map(({ name }) => name.split(" ")[0]);

/** Stores and runs one job with this option. Returns the kinds of spans that it made. */
async function spansOfJob(enableOtel?: boolean): Promise<(string | undefined)[]> {
  const queue = openQueue(database, tasks, enableOtel === undefined ? {} : { enableOtel });
  const job = await queue.enqueue("given");
  const { ended, worker } = await startWorker(queue);
  await ended(job.key);
  await worker.stop();
  const traced = JSON.parse((await rowOf(database, job.key))?.text ?? "{}").meta?._otel_context !== undefined;
  expect(traced).toBe(names().includes("publish"));
  return names();
}

describe("before a provider is registered", () => {
  it("the package is found, and nothing is registered", () => {
    const api = loadOtelApi();
    expect(api && hasProvider(api)).toBe(false);
  });

  it.each([undefined, true, false])("enableOtel: %s makes no spans, and jobs run", async (enableOtel) => {
    expect(await spansOfJob(enableOtel)).toEqual([]);
  });

  it("a queue that is connected later, and a worker that starts later, find a provider that comes later", async () => {
    const queue = openQueue(database, tasks);
    await queue.enqueue("given");
    telemetry.start();
    try {
      const { ended } = await startWorker(queue);
      const job = await queue.enqueue("given");
      await ended(job.key);
      expect(names()).toEqual(expect.arrayContaining(["process", "publish"]));
    } finally {
      await telemetry.stop();
    }
  });
});

describe("with a registered provider", () => {
  it.each<[boolean | undefined, string[]]>([
    [undefined, ["publish", "process", "settle"]],
    [true, ["publish", "process", "settle"]],
    [false, []],
  ])("enableOtel: %s makes the spans %s", async (enableOtel, expected) => {
    telemetry.start();
    try {
      expect(await spansOfJob(enableOtel)).toEqual(expected);
    } finally {
      await telemetry.stop();
    }
  });

  it("defineSaq sets it for all queues that do not set it themselves", async () => {
    telemetry.start();
    try {
      const of = (name: string, options: { enableOtel?: boolean }) =>
        defineQueue({ name, dsn: database.url, tasks, ...options });
      const queues = [of("off", {}), of("own", { enableOtel: true })] as const;
      const saq = closeAfterTest(createSaq(defineSaq({ queues, enableOtel: false })));
      await saq.taskQueues.get("off").enqueue("given");
      await saq.taskQueues.get("own").enqueue("given");
      expect(telemetry.spans().map(({ name }) => name)).toEqual(["publish own"]);
    } finally {
      await telemetry.stop();
    }
  });

  it("a meter provider alone is enough: metrics are recorded", () => {
    const meter = { createHistogram: () => ({}) };
    const api = {
      ...otel,
      metrics: { getMeterProvider: () => ({}), getMeter: () => meter },
    } as unknown as OtelApi;
    expect(hasProvider(api)).toBe(true);
  });
});

describe("the package", () => {
  const missing = Object.assign(new Error("Cannot find module '@opentelemetry/api'"), {
    code: "MODULE_NOT_FOUND",
  });

  it("that is missing is null", () => {
    const require = () => {
      throw missing;
    };
    expect(loadOtelApi(require)).toBeNull();
  });

  it.each<[string, () => unknown, string]>([
    [
      "has another major version",
      () => ({ trace: {}, context: {} }),
      "The installed version of @opentelemetry/api is not supported: versions from 1.9 up to 2 are.",
    ],
    [
      "cannot be loaded",
      () => {
        throw new SyntaxError("Unexpected token");
      },
      "The package @opentelemetry/api is installed, but it cannot be loaded: Unexpected token. Install it again",
    ],
  ])("that %s is an error that says so", (_, require, message) => {
    expect(() => loadOtelApi(require)).toThrow(message);
  });
});

it("what a connection causes belongs to no request, also if a request was the first that needed it", async () => {
  const store = new AsyncLocalStorage<string>();
  const seen: unknown[] = [];
  const queue = openQueue(database, tasks);
  await store.run("first request", async () => {
    await queue.connect();
    const unsubscribe = await queue.broker.subscribe(() => seen.push(store.getStore()));
    closeAfterTest({ close: unsubscribe });
  });
  await queue.enqueue("given");
  await until(async () => seen.length > 0);
  expect(seen[0]).toBeUndefined();
});
