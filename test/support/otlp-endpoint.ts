/** A collector of OpenTelemetry for tests: an HTTP server that keeps what an OTLP exporter sends as JSON. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { ShownSpan } from "./trace-text.js";

export interface CollectedSpan extends ShownSpan {
  traceId: string;
  /** Name of the library that made the span. */
  scope: string;
  /** Name of the program that sent it. */
  service: string;
}

type Value = { stringValue?: string; intValue?: string | number; doubleValue?: number; boolValue?: boolean };
type Pairs = { key: string; value: Value }[];

interface OtlpSpan {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  kind: number;
  startTimeUnixNano: string;
  attributes?: Pairs;
  links?: { spanId: string; attributes?: Pairs }[];
  status?: { code?: number };
}

interface Resource {
  resource?: { attributes?: Pairs };
}

interface TraceRequest {
  resourceSpans?: (Resource & { scopeSpans?: { scope?: { name?: string }; spans?: OtlpSpan[] }[] })[];
}

interface MetricRequest {
  resourceMetrics?: (Resource & { scopeMetrics?: { metrics?: { name: string }[] }[] })[];
}

const kinds = ["INTERNAL", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"] as const;
const statuses = ["unset", "ok", "error"] as const;

const plainValue = ({ stringValue, intValue, doubleValue, boolValue }: Value): unknown =>
  stringValue ?? (intValue === undefined ? (doubleValue ?? boolValue) : Number(intValue));
const attributesOf = (pairs: Pairs = []) =>
  Object.fromEntries(pairs.map(({ key, value }) => [key, plainValue(value)]));

export class OtlpEndpoint {
  readonly spans: CollectedSpan[] = [];
  /** The names of the metrics, each with the names of the programs that sent it. */
  readonly metrics = new Map<string, Set<string>>();
  /** What came and could not be read. */
  readonly problems: string[] = [];
  readonly #server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (text: string) => {
      body += text;
    });
    request.on("end", () => {
      try {
        if (request.url === "/v1/traces") this.#addSpans(JSON.parse(body) as TraceRequest);
        else if (request.url === "/v1/metrics") this.#addMetrics(JSON.parse(body) as MetricRequest);
      } catch (error) {
        this.problems.push(`${request.url}: ${(error as Error).message}`);
      }
      response.setHeader("content-type", "application/json").end("{}");
    });
  });

  async listen(): Promise<void> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  #addSpans({ resourceSpans = [] }: TraceRequest): void {
    for (const { resource, scopeSpans = [] } of resourceSpans) {
      const service = String(attributesOf(resource?.attributes)["service.name"]);
      for (const { scope, spans = [] } of scopeSpans)
        this.spans.push(...spans.map((span) => shown(span, scope?.name ?? "", service)));
    }
  }

  #addMetrics({ resourceMetrics = [] }: MetricRequest): void {
    for (const { resource, scopeMetrics = [] } of resourceMetrics) {
      const service = String(attributesOf(resource?.attributes)["service.name"]);
      for (const { name } of scopeMetrics.flatMap(({ metrics = [] }) => metrics)) {
        const services = this.metrics.get(name) ?? new Set();
        this.metrics.set(name, services.add(service));
      }
    }
  }
}

const shown = (span: OtlpSpan, scope: string, service: string): CollectedSpan => ({
  traceId: span.traceId,
  id: span.spanId,
  parent: span.parentSpanId || undefined,
  name: span.name,
  kind: kinds[span.kind] ?? "INTERNAL",
  status: statuses[span.status?.code ?? 0] ?? "unset",
  start: Number(span.startTimeUnixNano),
  attributes: attributesOf(span.attributes),
  links: (span.links ?? []).map(({ spanId, attributes }) => ({
    id: spanId,
    what: attributesOf(attributes)["saq.link"],
  })),
  scope,
  service,
});

/** Returns only the spans that `isShown` accepts, each as a child of its nearest ancestor among them. */
export function keepSpans(
  spans: readonly CollectedSpan[],
  isShown: (span: CollectedSpan) => boolean,
): CollectedSpan[] {
  const byId = new Map(spans.map((span) => [span.id, span]));
  const nearest = (id: string | undefined): string | undefined => {
    const span = byId.get(id ?? "");
    return !span || isShown(span) ? span?.id : nearest(span.parent);
  };
  return spans.filter(isShown).map((span) => ({ ...span, parent: nearest(span.parent) }));
}
