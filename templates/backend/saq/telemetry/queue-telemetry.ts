/** Decides whether a queue has OpenTelemetry: the option `enableOtel`. */
import type { QueueConfig } from "../config/index.js";
import { ConfigError } from "../errors.js";
import { hasProvider, loadOtelApi, type OtelApi } from "./otel-api.js";
import type { Carrier } from "./propagation.js";
import { Telemetry } from "./telemetry.js";
import { threadCarrier } from "./thread-context.js";

export class QueueTelemetry {
  /** Null while the queue makes no spans and no metrics. */
  current: Telemetry | null = null;
  readonly #config: Pick<QueueConfig, "name" | "dsn">;
  /** The package; null if it is not installed or not used, undefined while nobody has looked. */
  #api: OtelApi | null | undefined;

  /**
   * `enableOtel`: true = always, false = never, null = as soon as the package is installed and a provider is
   * registered.
   *
   * @throws ConfigError if `enableOtel` is true, and the package is not installed or has another major version
   */
  constructor({ name, dsn, enableOtel }: Pick<QueueConfig, "name" | "dsn" | "enableOtel">) {
    this.#config = { name, dsn };
    if (enableOtel === false) this.#api = null;
    if (enableOtel !== true) return;
    const api = loadOtelApi();
    if (!api) {
      throw new ConfigError(
        `Queue "${name}" has enableOtel: true, but the package @opentelemetry/api is not installed. Install it ` +
          "(npm install @opentelemetry/api --workspace=backend), or leave enableOtel out",
      );
    }
    this.current = new Telemetry(api, this.#config);
  }

  /** The carrier of the task that runs here in a thread, for the jobs that it enqueues; undefined if there is none. */
  get threadCarrier(): Carrier | undefined {
    return this.#api === null ? undefined : threadCarrier();
  }

  /**
   * Looks whether a provider is registered now, unless the option has decided already. Called before a queue connects
   * and before a worker starts, and not for each job.
   */
  refresh(): void {
    if (this.current || this.#api === null) return;
    this.#api ??= loadIfSupported();
    if (this.#api && hasProvider(this.#api)) this.current = new Telemetry(this.#api, this.#config);
  }
}

/** Nobody has asked for OpenTelemetry, so a version that does not fit is not an error. */
function loadIfSupported(): OtelApi | null {
  try {
    return loadOtelApi();
  } catch (error) {
    if (error instanceof ConfigError) return null;
    throw error;
  }
}
