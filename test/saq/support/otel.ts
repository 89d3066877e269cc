/** OpenTelemetry's SDK in a test: it keeps spans and metrics in memory. */
import { afterAll, afterEach, beforeAll } from "@jest/globals";
import { context, metrics, propagation, trace } from "@opentelemetry/api";
import { MeterProvider, type MetricData, MetricReader } from "@opentelemetry/sdk-metrics";
import {
  InMemorySpanExporter,
  NodeTracerProvider,
  type ReadableSpan,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-node";

/** A reader that collects when the test asks for it. */
class TestReader extends MetricReader {
  protected override async onShutdown(): Promise<void> {}
  protected override async onForceFlush(): Promise<void> {}
}

export interface TestTelemetry {
  /** Returns the spans that have ended, in the order of their ends. */
  spans(): ReadableSpan[];
  /** Collects the metrics of the instrumentation scope `saq`. Returns them by name. */
  metrics(): Promise<Map<string, MetricData>>;
  /** Registers the SDK, as a program does at its start. Called before the first test unless `atStart` is false. */
  start(): void;
  /** Takes the registration back. */
  stop(): Promise<void>;
}

/** Registers an SDK for this test file. */
export function useTelemetry({ atStart = true } = {}): TestTelemetry {
  let exporter = new InMemorySpanExporter();
  let provider: NodeTracerProvider | null = null;
  let meters: MeterProvider | null = null;
  let reader = new TestReader();
  const telemetry: TestTelemetry = {
    spans: () => exporter.getFinishedSpans(),
    metrics: async () => {
      const { resourceMetrics } = await reader.collect();
      const ours = resourceMetrics.scopeMetrics.filter(({ scope }) => scope.name === "saq");
      return new Map(ours.flatMap((each) => each.metrics.map((metric) => [metric.descriptor.name, metric])));
    },
    start: () => {
      exporter = new InMemorySpanExporter();
      provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
      provider.register();
      reader = new TestReader();
      meters = new MeterProvider({ readers: [reader] });
      metrics.setGlobalMeterProvider(meters);
    },
    stop: async () => {
      await provider?.shutdown();
      await meters?.shutdown();
      for (const api of [trace, metrics, context, propagation]) api.disable();
      provider = null;
      meters = null;
    },
  };
  beforeAll(() => {
    if (atStart) telemetry.start();
  });
  afterEach(() => exporter.reset());
  afterAll(() => telemetry.stop());
  return telemetry;
}
