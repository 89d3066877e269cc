/**
 * What the engine uses of the package `@opentelemetry/api`, as types of its own: the package is optional, and the
 * engine compiles without it. A test compares these types with those of the package.
 */
import { createRequire } from "node:module";
import { ConfigError } from "../errors.js";

/** A context of OpenTelemetry. The engine only passes it on. */
export interface OtelContext {
  getValue(key: symbol): unknown;
  setValue(key: symbol, value: unknown): OtelContext;
  deleteValue(key: symbol): OtelContext;
}

export interface SpanContext {
  traceId: string;
  spanId: string;
  traceFlags: number;
  isRemote?: boolean;
}

type AttributeValue = string | number | boolean;
export type Attributes = Record<string, AttributeValue>;

export interface Span {
  spanContext(): SpanContext;
  setAttributes(attributes: Attributes): unknown;
  setStatus(status: { code: number; message?: string }): unknown;
  recordException(exception: Error | string): void;
  end(): void;
}

export interface SpanLink {
  context: SpanContext;
  attributes?: Attributes;
}

export interface Tracer {
  startSpan(
    name: string,
    options: { kind: number; attributes: Attributes; links?: SpanLink[] },
    context: OtelContext,
  ): Span;
}

/** A histogram or a counter. */
export interface Histogram {
  record(value: number, attributes: Attributes): void;
}
export interface Counter {
  add(value: number, attributes: Attributes): void;
}

interface ObservableResult {
  observe(value: number, attributes: Attributes): void;
}
export interface ObservableGauge {
  addCallback(callback: (result: ObservableResult) => void | Promise<void>): void;
}

interface InstrumentOptions {
  description: string;
  unit: string;
  advice?: { explicitBucketBoundaries: number[] };
}

export interface Meter {
  createHistogram(name: string, options: InstrumentOptions): Histogram;
  createCounter(name: string, options: InstrumentOptions): Counter;
  createObservableGauge(name: string, options: InstrumentOptions): ObservableGauge;
}

/** Reads a carrier. */
export interface CarrierGetter {
  get(carrier: object, key: string): string | undefined;
  keys(carrier: object): string[];
}

/** The members of `@opentelemetry/api` that the engine uses. */
export interface OtelApi {
  readonly ROOT_CONTEXT: OtelContext;
  readonly context: {
    active(): OtelContext;
    with<Result>(context: OtelContext, call: () => Result): Result;
  };
  readonly trace: {
    getTracer(name: string): Tracer;
    getTracerProvider(): object;
    setSpan(context: OtelContext, span: Span): OtelContext;
    deleteSpan(context: OtelContext): OtelContext;
    getSpanContext(context: OtelContext): SpanContext | undefined;
    isSpanContextValid(context: SpanContext): boolean;
  };
  readonly propagation: {
    inject(context: OtelContext, carrier: object): void;
    extract(context: OtelContext, carrier: object, getter: CarrierGetter): OtelContext;
  };
  readonly metrics: {
    getMeterProvider(): object;
    getMeter(name: string): Meter;
  };
  createNoopMeter(): object;
}

/** The value of `SpanKind` and `SpanStatusCode`, which never change: they are part of OpenTelemetry's specification. */
export const spanKind = { client: 2, producer: 3, consumer: 4 } as const;
export const errorStatus = 2;

/** Name of the instrumentation scope of all spans and metrics. */
export const scopeName = "saq";

const packageName = "@opentelemetry/api";

/** Loads a package by its name, as `require` does. */
type Load = (name: string) => unknown;
const load: Load = createRequire(import.meta.url);

/**
 * Returns the package; null if it is not installed.
 *
 * @throws ConfigError if another major version is installed, or if the package cannot be loaded
 */
export function loadOtelApi(require: Load = load): OtelApi | null {
  let api: unknown;
  try {
    api = require(packageName);
  } catch (error) {
    if (isMissing(error)) return null;
    throw new ConfigError(
      `The package ${packageName} is installed, but it cannot be loaded: ${(error as Error).message}. ` +
        "Install it again, or set enableOtel: false",
      { cause: error },
    );
  }
  if (!isSupported(api)) {
    throw new ConfigError(
      `The installed version of ${packageName} is not supported: versions from 1.9 up to 2 are. ` +
        `Install one of them (npm install "${packageName}@^1.9"), or set enableOtel: false`,
    );
  }
  return api;
}

function isMissing(error: unknown): boolean {
  const { code, message } = error as { code?: unknown; message?: unknown };
  return code === "MODULE_NOT_FOUND" && String(message).includes(packageName);
}

/** The package tells its version to nobody, so its members are looked at. */
function isSupported(api: unknown): api is OtelApi {
  const { ROOT_CONTEXT, context, trace, propagation, metrics, createNoopMeter } = (api ??
    {}) as Partial<OtelApi>;
  const functions: unknown[] = [
    context?.with,
    trace?.getTracerProvider,
    trace?.isSpanContextValid,
    propagation?.extract,
    metrics?.getMeterProvider,
    createNoopMeter,
  ];
  return ROOT_CONTEXT !== undefined && functions.every((each) => typeof each === "function");
}

/** True if the program has registered a tracer or meter provider, as each SDK does at its start. */
export function hasProvider({ trace, metrics, createNoopMeter }: OtelApi): boolean {
  // The package returns a proxy until a provider is registered. A proxy without a provider has no tracer of its own.
  const provider = trace.getTracerProvider() as { getDelegateTracer?: (name: string) => unknown };
  if (!provider.getDelegateTracer || provider.getDelegateTracer(scopeName) !== undefined) return true;
  return metrics.getMeter(scopeName) !== createNoopMeter();
}
