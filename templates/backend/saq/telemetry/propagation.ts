/**
 * How a trace goes from the caller of `enqueue` to the worker: in the member `_otel_context` of the job's `meta`. It is
 * the carrier of the program's propagator, as Litestar-SAQ writes and reads it.
 */
import type { JobFields } from "../core/job.js";
import { firstAttemptMember, otelContextMember } from "../core/job-meta.js";
import type { CarrierGetter, OtelApi, OtelContext, SpanContext } from "./otel-api.js";

/** The texts of a propagator: `traceparent`, `tracestate`, `baggage` and the like. */
export type Carrier = Readonly<Record<string, string>>;

/**
 * Member of the carrier for jobs whose attempts have a trace of their own, with a link: jobs that were stored together
 * by one call, because thousands of jobs in one trace could not be read, and ticks of scheduled tasks, because they are
 * stored long before they run. Propagators ignore the member.
 */
const bulkMember = "saq_bulk";

/** Other programs may write anything into `meta`, and a propagator may throw if a value is not a text. */
const textsOnly: CarrierGetter = {
  get: (carrier, key) => {
    const value = Object.hasOwn(carrier, key) ? (carrier as Record<string, unknown>)[key] : undefined;
    return typeof value === "string" ? value : undefined;
  },
  keys: (carrier) => Object.keys(carrier),
};

/** Returns the carrier of a context; null if the propagator writes nothing, for example because there is no span. */
export function carrierOf(api: OtelApi, context: OtelContext): Carrier | null {
  const carrier: Record<string, string> = {};
  api.propagation.inject(context, carrier);
  return Object.keys(carrier).length === 0 ? null : carrier;
}

/** Returns the carrier for jobs whose attempts have a trace of their own, with a link to the context. */
export const asLink = (carrier: Carrier): Carrier => ({ ...carrier, [bulkMember]: "true" });

interface JobOrigin {
  /** The context in which the attempt's span starts. */
  parent: OtelContext;
  /** The span of the call that stored the job; undefined if the job has none. */
  creation: SpanContext | undefined;
}

/** Returns the context that a carrier leads to; the root context if the carrier is empty or cannot be read. */
export const contextOf = (api: OtelApi, carrier: object): OtelContext =>
  api.propagation.extract(api.ROOT_CONTEXT, carrier, textsOnly);

/** Returns where a job comes from. A carrier that is empty or cannot be read is none. */
export function originOf(api: OtelApi, meta: JobFields["meta"]): JobOrigin {
  const carrier = meta[otelContextMember];
  if (typeof carrier !== "object" || carrier === null)
    return { parent: api.ROOT_CONTEXT, creation: undefined };
  const extracted = contextOf(api, carrier);
  const span = api.trace.getSpanContext(extracted);
  const creation = span && api.trace.isSpanContextValid(span) ? span : undefined;
  const isBulk = textsOnly.get(carrier, bulkMember) !== undefined;
  return { parent: isBulk ? api.trace.deleteSpan(extracted) : extracted, creation };
}

/** Returns the text under which the first attempt of a job is stored, in the form of the header `traceparent`. */
export const traceparentOf = ({ traceId, spanId, traceFlags }: SpanContext): string =>
  `00-${traceId}-${spanId}-${traceFlags.toString(16).padStart(2, "0")}`;

/** Returns the span of the job's first attempt; null before its first retry. */
export function firstAttemptOf(meta: JobFields["meta"]): SpanContext | null {
  const text = meta[firstAttemptMember];
  const match = typeof text === "string" && /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(text);
  if (!match) return null;
  const [, traceId = "", spanId = "", flags = ""] = match;
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16), isRemote: true };
}
