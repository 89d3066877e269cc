/** A client for the first acceptable server of an address: pg itself knows one host, either with TLS or without. */
import pg from "pg";
import { detached } from "../../detached.js";

export interface ClientOptions extends pg.ClientConfig {
  /** Complete settings for each host, with or without TLS, in the order in which they are tried. */
  candidates: readonly pg.ClientConfig[];
  /** Which servers are accepted: a value of libpq's target_session_attrs. */
  targetSessionAttrs: string;
}

/** Errors that every other host would return too: wrong password, no such role, no such database. */
const fatalCodes = new Set<unknown>(["28P01", "28000", "3D000"]);

export class Client extends pg.Client {
  readonly #options: ClientOptions;
  #isEnded = false;

  constructor(options: ClientOptions) {
    super({ ...options, ...options.candidates[0] });
    this.#options = options;
  }

  override connect(): Promise<pg.Client>;
  override connect(callback: (error: Error) => void): void;
  override connect(callback?: (error: Error) => void): unknown {
    const { candidates, targetSessionAttrs } = this.#options;
    if (candidates.length === 1 && targetSessionAttrs === "any")
      return detached(() => (callback ? super.connect(callback) : super.connect()));
    const connected = detached(() => this.#chooseServer().then(() => super.connect()));
    if (!callback) return connected;
    // On success pg calls the callback without arguments, which its types do not allow.
    connected.then(() => (callback as () => void)(), callback);
  }

  override end(): Promise<void>;
  override end(callback: (error: Error) => void): void;
  override end(callback?: (error: Error) => void): unknown {
    this.#isEnded = true;
    return callback ? super.end(callback) : super.end();
  }

  /** Tries each entry of `candidates` with a connection of its own, because a pg client can connect only once. */
  async #chooseServer(): Promise<void> {
    const { candidates, targetSessionAttrs: wanted } = this.#options;
    const isOneHost = new Set(candidates.map(({ host, port }) => `${host} ${port}`)).size === 1;
    const errors: Error[] = [];
    for (const target of wanted === "prefer-standby" ? ["standby", "any"] : [wanted]) {
      for (const candidate of candidates) {
        const error = await tryCandidate(candidate, target);
        if (this.#isEnded) throw new Error("Connection terminated");
        if (error === null) return this.#use(candidate);
        errors.push(error);
        // With one host, the next entry may succeed, because it differs in TLS.
        if (!isOneHost && fatalCodes.has(codeOf(error))) throw error;
      }
    }
    const message = [...new Set(errors.map((error) => error.message))].join("; ");
    throw Object.assign(new AggregateError(errors, message), { code: codeOf(errors[0]) });
  }

  /** Sets the values that pg reads when it connects. */
  #use({ host, port, ssl }: pg.ClientConfig): void {
    const { connection, connectionParameters } = this as unknown as Record<string, object>;
    Object.assign(this, { host, port, ssl });
    Object.assign(connectionParameters ?? {}, { host, port, ssl });
    Object.assign(connection ?? {}, { ssl });
  }
}

/** Connects once with these settings. Returns null if the server is accepted, else the error. */
async function tryCandidate(candidate: pg.ClientConfig, target: string): Promise<Error | null> {
  const probe = new pg.Client(candidate);
  probe.on("error", () => {});
  try {
    await probe.connect();
    if (target === "any" || (await isAccepted(probe, target))) return null;
    const { host, port } = candidate;
    // PostgreSQL's own code for a write to a standby.
    return Object.assign(new Error(`${host}:${port} is not ${target}`), { code: "25006" });
  } catch (error) {
    return error as Error;
  } finally {
    void probe.end().catch(() => {});
  }
}

async function isAccepted(client: pg.Client, target: string): Promise<boolean> {
  const { rows } = await client.query<{ standby: boolean; readonly: string }>(
    "select pg_is_in_recovery() as standby, pg_catalog.current_setting('transaction_read_only') as readonly",
  );
  const { standby = false, readonly = "off" } = rows[0] ?? {};
  switch (target) {
    case "read-write":
      return !standby && readonly === "off";
    case "read-only":
      return standby || readonly === "on";
    case "primary":
      return !standby;
    default:
      return standby;
  }
}

const codeOf = (error: unknown): unknown => (error as { code?: unknown } | undefined)?.code;

/** Closes the socket without PostgreSQL's Terminate message: statements that wait for an answer on it fail at once. */
export function closeSocket(client: pg.ClientBase): void {
  (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
}

/**
 * Ends the connection, and closes its socket after `timeoutMs`. `end` alone waits for an answer, which never comes on
 * a half-open socket or from a server that hangs, and an open socket keeps the process alive.
 */
export async function closeClient(client: pg.ClientBase, timeoutMs: number): Promise<void> {
  const timer = setTimeout(() => closeSocket(client), timeoutMs);
  await (client as pg.Client).end().catch(() => {});
  clearTimeout(timer);
}
