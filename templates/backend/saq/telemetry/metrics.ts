/**
 * The metrics of a queue: those of OpenTelemetry's conventions for messaging, and gauges of the queue and its worker.
 */
import type { JobCounts } from "../broker.js";
import { attribute, durationBuckets } from "./conventions.js";
import {
  type Attributes,
  type Counter,
  type Histogram,
  type Meter,
  type ObservableGauge,
  type OtelApi,
  scopeName,
} from "./otel-api.js";

/** What the gauges of a worker show. Each function is called when a metric reader collects. */
export interface Observed {
  /** Returns the number of jobs by state. */
  counts(): Promise<JobCounts>;
  /** Returns when the oldest waiting job was due, epoch s; null if none waits. */
  oldestDue(): Promise<number | null>;
  /** The storage's clock, epoch ms. */
  now(): number;
  /** Number of slots in use, and of all slots. */
  slots(): { used: number; total: number };
}

interface Instruments {
  duration: Histogram;
  sent: Counter;
  consumed: Counter;
  processing: Histogram;
  jobs: ObservableGauge;
  oldestAge: ObservableGauge;
  slots: ObservableGauge;
}

export class Metrics {
  readonly #api: OtelApi;
  readonly #queueName: string;
  /** The workers of this queue in this process. */
  readonly #observed = new Set<Observed>();
  #hasGauges = false;
  #provider: object | null = null;
  #current: Instruments | null = null;

  constructor(api: OtelApi, queueName: string) {
    this.#api = api;
    this.#queueName = queueName;
  }

  /** Records a call that stores `count` jobs. `seconds`: how long it took. */
  published(seconds: number, count: number, attributes: Attributes): void {
    const { duration, sent } = this.#instruments;
    duration.record(seconds, attributes);
    sent.add(count, attributes);
  }

  /** Records a call to the storage that stores no jobs. `seconds`: how long it took. */
  called(seconds: number, attributes: Attributes): void {
    this.#instruments.duration.record(seconds, attributes);
  }

  /** Records that a task was given a job. */
  consumed(attributes: Attributes): void {
    this.#instruments.consumed.add(1, attributes);
  }

  /** Records an attempt that has ended. */
  processed(seconds: number, attributes: Attributes): void {
    this.#instruments.processing.record(seconds, attributes);
  }

  /** Shows the state of the queue and of a worker in gauges. Returns a function that ends this. */
  observe(worker: Observed): () => void {
    // The callbacks stay: an SDK repeats the last value of a gauge without a callback for ever.
    if (!this.#hasGauges) {
      this.#addGauges(this.#instruments);
      this.#hasGauges = true;
    }
    this.#observed.add(worker);
    return () => void this.#observed.delete(worker);
  }

  #addGauges({ jobs, oldestAge, slots }: Instruments): void {
    const queue: Attributes = { [attribute.system]: "saq", [attribute.destination]: this.#queueName };
    jobs.addCallback(async (gauge) => {
      const [worker] = this.#observed;
      if (!worker) return;
      for (const [state, count] of Object.entries(await worker.counts()))
        gauge.observe(count, { ...queue, [attribute.state]: state });
    });
    oldestAge.addCallback(async (gauge) => {
      const [worker] = this.#observed;
      if (!worker) return;
      const due = await worker.oldestDue();
      gauge.observe(due === null ? 0 : Math.max(worker.now() / 1_000 - due, 0), queue);
    });
    slots.addCallback((gauge) => {
      let used = 0;
      let free = 0;
      for (const worker of this.#observed) {
        const own = worker.slots();
        used += own.used;
        free += own.total - own.used;
      }
      gauge.observe(used, { ...queue, [attribute.slotState]: "used" });
      gauge.observe(free, { ...queue, [attribute.slotState]: "free" });
    });
  }

  /**
   * The instruments of the meter provider that is registered now. An instrument that was made before a provider is
   * registered records nothing, for ever.
   */
  get #instruments(): Instruments {
    const provider = this.#api.metrics.getMeterProvider();
    if (!this.#current || provider !== this.#provider) {
      this.#provider = provider;
      this.#current = createInstruments(this.#api.metrics.getMeter(scopeName));
      if (this.#hasGauges) this.#addGauges(this.#current);
    }
    return this.#current;
  }
}

function createInstruments(meter: Meter): Instruments {
  const seconds = { unit: "s", advice: { explicitBucketBoundaries: durationBuckets } };
  return {
    duration: meter.createHistogram("messaging.client.operation.duration", {
      description: "Duration of calls that store, claim and settle jobs.",
      ...seconds,
    }),
    sent: meter.createCounter("messaging.client.sent.messages", {
      description: "Number of jobs that were passed to the queue.",
      unit: "{message}",
    }),
    consumed: meter.createCounter("messaging.client.consumed.messages", {
      description: "Number of attempts that were started.",
      unit: "{message}",
    }),
    processing: meter.createHistogram("messaging.process.duration", {
      description: "Duration of attempts.",
      ...seconds,
    }),
    jobs: meter.createObservableGauge("saq.queue.jobs", {
      description: "Number of jobs in the queue, by state.",
      unit: "{job}",
    }),
    oldestAge: meter.createObservableGauge("saq.queue.oldest_age", {
      description: "How long the oldest waiting job without a group has been due.",
      unit: "s",
    }),
    slots: meter.createObservableGauge("saq.worker.slots", {
      description: "Number of slots of the worker, used and free.",
      unit: "{slot}",
    }),
  };
}
