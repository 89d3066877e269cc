/** A task that runs in a thread with an SDK of OpenTelemetry, which starts when the thread loads this module. */
import { isMainThread } from "node:worker_threads";
import * as otel from "@opentelemetry/api";
import { InMemorySpanExporter, NodeTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-node";
import { task } from "../../../../templates/backend/saq/index.js";
import { shownSpan } from "../shown-span.js";
import { enqueueChildren, type Target } from "./traced-thread-tasks.js";

const exporter = new InMemorySpanExporter();
if (!isMainThread) new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }).register();

/** Makes a span and enqueues a job in its thread. Returns the spans that ended there. */
export const traces = task({
  thread: import.meta.url,
  run: async (_ctx, target: Target) => {
    exporter.reset();
    await otel.trace.getTracer("test").startActiveSpan("compute", async (span) => {
      await new Promise((resolve) => setTimeout(resolve, 2));
      span.end();
    });
    await enqueueChildren(target);
    const tenant = otel.propagation.getActiveBaggage()?.getEntry("tenant")?.value;
    return { spans: exporter.getFinishedSpans().map(shownSpan), tenant };
  },
});
