/**
 * Spans of OpenTelemetry's SDK in the form that `traceText` prints. Threads import this file too, so it imports no
 * jest.
 */
import type { ReadableSpan } from "@opentelemetry/sdk-trace-node";
import type { ShownSpan } from "../../support/trace-text.js";

const kinds = ["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"] as const;
const statuses = ["unset", "ok", "error"] as const;

export function shownSpan(span: ReadableSpan): ShownSpan {
  const [seconds, nanos] = span.startTime;
  return {
    id: span.spanContext().spanId,
    parent: span.parentSpanContext?.spanId,
    name: span.name,
    kind: kinds[span.kind] ?? "INTERNAL",
    status: statuses[span.status.code] ?? "unset",
    start: seconds * 1e9 + nanos,
    attributes: span.attributes,
    links: span.links.map(({ context: linked, attributes }) => ({
      id: linked.spanId,
      what: attributes?.["saq.link"],
    })),
  };
}
