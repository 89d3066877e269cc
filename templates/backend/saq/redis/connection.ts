/**
 * The connections of one process to one Redis server. Queues with the same DSN share them: one connection for commands,
 * one for published messages, and one for each worker that waits for jobs.
 */
import { setMaxListeners } from "node:events";
import type { RedisClientType } from "@redis/client";
import { AddressError } from "../address-parts.js";
import { backoffMs } from "../core/backoff.js";
import { SaqError } from "../errors.js";
import type { Logger } from "../logger.js";
import { ProblemLog } from "../problem-log.js";
import {
  nameOfRedisAddress,
  parseRedisAddress,
  type RedisAddress,
  redisTlsOptions,
} from "../redis-address.js";
import { DatabaseClock } from "../storage/clock.js";
import { sleep } from "../timers.js";
import {
  explanationOf,
  hasReason,
  isOutOfMemory,
  isServerDown,
  isSilent,
  isUnavailable,
  RedisTimeoutError,
  wasNotSent,
} from "./errors.js";
import type { Script } from "./lua/script.js";

type Client = RedisClientType;
/** What a command or a script returns. Each caller knows the form of its own reply. */
export type Reply = unknown;

const connectTimeoutMs = 10_000;
/** A command without a response for this long has failed, and its connection is replaced. */
const commandTimeoutMs = 8_000;
/** How long a call waits for a server that cannot be reached, unless it says otherwise. */
const retryTimeoutMs = 8_000;
const keepAliveMs = 5_000;

export interface RetryOptions {
  /** How long the command is sent again while the server cannot be reached, ms. @defaultValue 8_000 */
  timeoutMs?: number;
  /** False: a command that may have been carried out is not sent again. @defaultValue true */
  isRepeatable?: boolean;
  /** Returns false when the caller does not need the response any more. */
  isWanted?: () => boolean;
  /** Called before a command is sent again that may have been carried out. */
  onRepeat?: () => void;
}

export class RedisConnection {
  readonly logger: Logger;
  readonly clock: DatabaseClock;
  /** Address of the server for messages, without the password. */
  readonly name: string;
  readonly #address: RedisAddress;
  #users = 0;
  #client: Promise<Client> | null = null;
  #subscriber: Promise<Client> | null = null;
  readonly #waiters = new Set<Client>();
  readonly #closedClients = new WeakSet<Client>();
  /** Clients that open a socket at present. */
  readonly #openingClients = new WeakSet<Client>();
  /** Called when published messages may have been missed. */
  readonly #onGap = new Set<() => void>();
  readonly #closing = new AbortController();
  readonly #problems: ProblemLog;
  #isUnavailable = false;
  /** The last error of an outage that gives a reason. */
  #lastFailure: unknown = null;
  /** Since when the server has been reachable without a gap, by performance.now(). */
  #availableSince = 0;
  #isChecked = false;
  #hasAnswered = false;

  /** @throws AddressError for a Sentinel or a Cluster */
  constructor(dsn: string, logger: Logger) {
    this.#address = parseRedisAddress(dsn);
    this.name = nameOfRedisAddress(this.#address);
    if (this.#address.kind !== "single") {
      const kind = this.#address.kind === "sentinel" ? "a Sentinel" : "a Cluster";
      throw new AddressError(
        `names ${kind} of Redis, which is not supported yet; use the address of one server, for instance ` +
          "redis://localhost:6379/0",
      );
    }
    this.logger = logger;
    // In an outage each pending command waits for this signal.
    setMaxListeners(0, this.#closing.signal);
    this.#problems = new ProblemLog(logger);
    this.clock = new DatabaseClock({
      read: async () => {
        const [seconds, micros] = (await this.command(["TIME"])) as [string, string];
        return Number(seconds) * 1_000 + Number(micros) / 1_000;
      },
      pause: (ms) => this.pause(ms),
      isClosed: () => this.isClosed,
      logger,
    });
  }

  get isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** Since when the server has been reachable without a gap, by performance.now(); infinite while it is not. */
  get availableSince(): number {
    return this.#isUnavailable ? Number.POSITIVE_INFINITY : this.#availableSince;
  }

  /** True if the server itself is down or still loads its data, so that no other process can use it either. */
  get isServerDown(): boolean {
    return this.#isUnavailable && isServerDown(this.#lastFailure);
  }

  /** Counts a user. The connections close when as many users have called `release`. */
  retain(): this {
    this.#users++;
    return this;
  }

  async release(): Promise<void> {
    if (--this.#users > 0) return;
    this.#closing.abort();
    this.clock.stop();
    const clients = await Promise.allSettled([this.#client, this.#subscriber]);
    for (const result of clients)
      if (result.status === "fulfilled" && result.value) this.#destroy(result.value);
    for (const client of this.#waiters) this.#destroy(client);
  }

  /** Resolves after `ms`, or when the connections close. */
  pause(ms: number): Promise<void> {
    return sleep(ms, this.#closing.signal);
  }

  /**
   * Connects and checks the server.
   *
   * @throws SaqError config if it refuses the connection
   * @throws SaqError database_unavailable if it cannot be reached
   */
  async connect(): Promise<void> {
    if (this.isClosed) throw closedError();
    if (this.#isChecked) return;
    await this.command(["PING"]);
    await this.#checkServer();
    await this.clock.start();
    this.#isChecked = true;
  }

  /** Sends a command. */
  async command(args: readonly string[], options?: RetryOptions): Promise<Reply> {
    return this.#withClient((client) => this.#send(client, args), options);
  }

  /** Runs a script. Sends its text only if the server does not have it. A function returns the arguments of each try. */
  async run(
    { sha1, text }: Script,
    keys: readonly string[],
    args: readonly string[] | (() => readonly string[]),
    options?: RetryOptions,
  ): Promise<Reply> {
    return this.#withClient(async (client) => {
      const rest = [String(keys.length), ...keys, ...(typeof args === "function" ? args() : args)];
      try {
        return await this.#send(client, ["EVALSHA", sha1, ...rest]);
      } catch (error) {
        if (!/^NOSCRIPT/.test((error as Error).message)) throw error;
        return this.#send(client, ["EVAL", text, ...rest]);
      }
    }, options);
  }

  /** Opens a connection for commands that block. `close` ends it. */
  async openWaiter(): Promise<{
    send: (args: readonly string[], timeoutMs: number) => Promise<Reply>;
    close: () => void;
  }> {
    const client = await this.#withRetry(() => this.#open());
    this.#waiters.add(client);
    return {
      send: (args, timeoutMs) => this.#send(client, args, timeoutMs),
      close: () => {
        this.#waiters.delete(client);
        this.#destroy(client);
      },
    };
  }

  /**
   * Calls `listener` with the messages of a channel, and `onGap` after an outage in which messages may have been missed.
   * Returns a function that unsubscribes.
   */
  async subscribe(
    channel: string,
    listener: (message: string) => void,
    onGap: () => void,
  ): Promise<() => Promise<void>> {
    const client = await this.#withRetry(async () => {
      const subscriber = await this.#subscriberClient();
      await subscriber.subscribe(channel, listener);
      return subscriber;
    });
    this.#onGap.add(onGap);
    return async () => {
      this.#onGap.delete(onGap);
      if (!this.isClosed) await client.unsubscribe(channel, listener).catch(() => {});
    };
  }

  /** Calls `send` with the connection for commands. Its success ends an outage. */
  #withClient(send: (client: Client) => Promise<Reply>, options?: RetryOptions): Promise<Reply> {
    return this.#withRetry(async () => {
      const reply = await send(await this.#commandClient());
      this.#onAvailable();
      return reply;
    }, options);
  }

  async #withRetry<Result>(
    attempt: () => Promise<Result>,
    { timeoutMs = retryTimeoutMs, isRepeatable = true, isWanted = () => true, onRepeat }: RetryOptions = {},
  ): Promise<Result> {
    const deadline = performance.now() + timeoutMs;
    for (let tries = 0; ; tries++) {
      try {
        return await attempt();
      } catch (error) {
        if (!isUnavailable(error)) throw this.#explained(error);
        this.#onUnavailable(error);
        const pauseMs = backoffMs(tries);
        const mayRetry = isRepeatable || wasNotSent(error);
        if (this.isClosed) throw closedError();
        if (!mayRetry || !isWanted() || performance.now() + pauseMs > deadline)
          throw this.#unavailableError(error);
        if (!wasNotSent(error)) onRepeat?.();
        await this.pause(pauseMs);
      }
    }
  }

  async #send(client: Client, args: readonly string[], timeoutMs = commandTimeoutMs): Promise<Reply> {
    let timer: NodeJS.Timeout | undefined;
    let isOver = false;
    const timeout = new Promise<never>((_, reject) => {
      const fail = () => {
        if (isOver) return;
        reject(new RedisTimeoutError(timeoutMs / 1_000));
        // The connection may be dead although no packet says so. A new one is opened for the next command.
        this.#destroy(client);
        void this.#client?.then((current) => {
          if (current === client) this.#client = null;
        });
      };
      // If this process was paused, for example by a task that blocks the event loop, the response may have arrived and
      // not have been read yet: it is read before `setImmediate` calls back.
      timer = setTimeout(() => setImmediate(fail), timeoutMs);
    });
    try {
      return await Promise.race([client.sendCommand(args), timeout]);
    } finally {
      isOver = true;
      clearTimeout(timer);
    }
  }

  #commandClient(): Promise<Client> {
    if (this.isClosed) return Promise.reject(closedError());
    this.#client ??= this.#open().catch((error) => {
      this.#client = null;
      throw error;
    });
    return this.#client;
  }

  #subscriberClient(): Promise<Client> {
    this.#subscriber ??= this.#openSubscriber().catch((error) => {
      this.#subscriber = null;
      throw error;
    });
    return this.#subscriber;
  }

  async #openSubscriber(): Promise<Client> {
    const client = await this.#open();
    client.on("ready", () => {
      for (const call of this.#onGap) call();
    });
    return client;
  }

  async #open(): Promise<Client> {
    if (this.isClosed) throw closedError();
    const { createClient } = await loadClient();
    const { username, password, database } = this.#address;
    const client: Client = createClient({
      RESP: 2,
      ...(username !== undefined && { username }),
      ...(password !== undefined && { password }),
      database,
      disableOfflineQueue: true,
      // An idle connection through a firewall may be dead without a packet that says so.
      pingInterval: keepAliveMs * 2,
      socket: {
        ...socketOf(this.#address),
        connectTimeout: connectTimeoutMs,
        reconnectStrategy: (tries) =>
          this.isClosed || this.#closedClients.has(client) ? false : backoffMs(tries),
      },
    }) as unknown as Client;
    const isOpening = () => this.#openingClients.add(client);
    const isOpened = () => this.#openingClients.delete(client);
    isOpening();
    client.on("reconnecting", isOpening).on("connect", isOpened).on("error", isOpened);
    client.on("error", (error: unknown) => {
      // A wrong password, for instance, is no outage: whoever opens the connection gets the error.
      if (!this.#closedClients.has(client) && isUnavailable(error)) this.#onUnavailable(error);
    });
    let timer: NodeJS.Timeout | undefined;
    try {
      // The client would try to connect for ever.
      await Promise.race([
        client.connect(),
        new Promise<never>((_, reject) => {
          client.once("error", reject);
          timer = setTimeout(() => reject(new RedisTimeoutError(connectTimeoutMs / 1_000)), connectTimeoutMs);
        }),
      ]);
    } catch (error) {
      this.#destroy(client);
      throw error;
    } finally {
      clearTimeout(timer);
    }
    if (this.isClosed) {
      this.#destroy(client);
      throw closedError();
    }
    return client;
  }

  /** Closes a connection for good. Its pending commands fail, which is no outage. */
  #destroy(client: Client): void {
    this.#closedClients.add(client);
    // `destroy` would leave a socket open that is being opened at this moment, and the process would not end.
    if (this.#openingClients.has(client)) client.once("connect", () => client.destroy());
    else if (client.isOpen) client.destroy();
  }

  /**
   * Refuses a replica, and warns of a server that may delete jobs when its memory is full. A server that refuses INFO is
   * accepted.
   */
  async #checkServer(): Promise<void> {
    const replication = String(await this.command(["INFO", "replication"]).catch(() => ""));
    if (/^role:slave/m.test(replication) && !/^slave_read_only:0/m.test(replication))
      throw this.#unavailableError(new Error("READONLY"));
    const info = String(await this.command(["INFO", "memory"]).catch(() => ""));
    const policy = /^maxmemory_policy:(\S+)/m.exec(info)?.[1];
    const maxMemory = Number(/^maxmemory:(\d+)/m.exec(info)?.[1] ?? 0);
    if (maxMemory > 0 && policy !== undefined && policy !== "noeviction") {
      this.logger.warn(
        { server: this.name, policy },
        "Redis may delete jobs when its memory is full: set maxmemory-policy to noeviction",
      );
    }
  }

  /** Returns the error that callers get for an error that is no outage. */
  #explained(error: unknown): unknown {
    const explanation = explanationOf(error, this.name);
    if (explanation === null) return error;
    return new SaqError(isOutOfMemory(error) ? "database_unavailable" : "config", explanation, {
      cause: error,
    });
  }

  #unavailableError(cause: unknown): SaqError {
    const { message = "" } = Object(cause) as { message?: string };
    const explanation =
      explanationOf(cause, this.name) ??
      `Redis at ${this.name} does not answer: ${message || "no connection"}${this.#hint(cause)}`;
    return new SaqError("database_unavailable", explanation, { cause });
  }

  /** What may be wrong if something listens there, but has never answered as Redis does. */
  #hint(error: unknown): string {
    if (this.#hasAnswered || !isSilent(error)) return "";
    return this.#address.tls
      ? ". If it has no TLS, the DSN must begin with redis://"
      : ". If it is another kind of server, correct the DSN; if it needs TLS, the DSN must begin with rediss://";
  }

  #onUnavailable(error: unknown): void {
    if (hasReason(error)) this.#lastFailure = error;
    if (this.isClosed || this.#isUnavailable) return;
    this.#isUnavailable = true;
    const message = "Redis does not answer, trying again";
    this.#problems.failed({ source: "redis", error: this.#unavailableError(error), message });
  }

  #onAvailable(): void {
    this.#hasAnswered = true;
    if (!this.#isUnavailable) return;
    this.#isUnavailable = false;
    this.#lastFailure = null;
    this.#availableSince = performance.now();
    this.#problems.succeeded("redis");
  }
}

let clientModule: Promise<typeof import("@redis/client")> | null = null;

/** Loads the client once. A process without a queue on Redis never loads it. */
function loadClient(): Promise<typeof import("@redis/client")> {
  clientModule ??= import("@redis/client");
  return clientModule;
}

const closedError = () => new SaqError("queue_closed", "The queue was closed and cannot be used again");

function socketOf(address: RedisAddress) {
  if (address.socketPath !== undefined) return { path: address.socketPath, tls: false as const };
  const [node] = address.nodes;
  return {
    host: node?.host ?? "localhost",
    port: node?.port ?? 6379,
    keepAlive: true,
    keepAliveInitialDelay: keepAliveMs,
    ...(address.tls ? { ...redisTlsOptions(address), tls: true as const } : {}),
  };
}
