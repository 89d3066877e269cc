/**
 * The only LISTEN connection of a process to a server. It also holds the advisory locks by which other processes see
 * that this process lives: the locks end with the connection, whatever happens to the process.
 *
 * It is opened at its first use and probed regularly (a socket may be dead without any event). After a failure it
 * reconnects by itself and calls each subscriber once, because notifications may have been missed.
 */

import pg from "pg";
import { backoffMs } from "../../core/backoff.js";
import { describe, type Logger } from "../../logger.js";
import type { ProblemLog } from "../../problem-log.js";
import { sleep } from "../../timers.js";
import { Client, type ClientOptions, closeClient } from "./client.js";
import { explainPooler, markUnavailable } from "./errors.js";

const probeEveryMs = 10_000;
const probeTimeoutMs = 5_000;
const lockRetryMs = 2_000;

/** The name of the listening connection in the problem log. */
const source = "listener";
/** The kind of problem that the pool and this connection share, so that an outage is logged once. */
export const outage = "outage";

export interface ListenerOptions {
  config: ClientOptions;
  /** The statement that tries to take the lock of a worker id ($1) and returns `acquired`; the one that releases it. */
  holdLiveness: string;
  releaseLiveness: string;
  /** Called when the connection does not respond: it is lost, and others may be lost too. */
  onUnresponsive: () => void;
  logger: Logger;
  problems: ProblemLog;
}

/** Receives the payload of a notification, or null after a reconnect: notifications may have been missed. */
type Subscriber = (payload: string | null) => void;

interface Channel {
  readonly subscribers: Set<Subscriber>;
  /** Resolves when LISTEN has run. Later subscribers wait for it too: a notification sent before it does not arrive. */
  open: Promise<unknown>;
}

export class Listener {
  readonly #options: ListenerOptions;
  readonly #channels = new Map<string, Channel>();
  readonly #liveWorkers = new Set<string>();
  /** Worker ids whose lock is still held by an older session of this process that the server has not ended yet. */
  readonly #locksToRetry = new Set<string>();
  readonly #closing = new AbortController();
  /** By connection: resolves when its last statement so far has finished. */
  readonly #lastStatements = new WeakMap<pg.Client, Promise<unknown>>();
  #client: pg.Client | null = null;
  #connecting: Promise<void> | null = null;
  #probe: NodeJS.Timeout | null = null;
  #isChecking = false;

  constructor(options: ListenerOptions) {
    this.#options = options;
  }

  /** True if notifications arrive, as far as is known. */
  get isUp(): boolean {
    return this.#client !== null;
  }

  /** Calls `subscriber` at each notification of the channel and after each reconnect. Returns how to unsubscribe. */
  async subscribe(name: string, subscriber: Subscriber): Promise<() => Promise<void>> {
    const channel = this.#channels.get(name) ?? this.#openChannel(name);
    channel.subscribers.add(subscriber);
    const unsubscribe = async () => {
      channel.subscribers.delete(subscriber);
      if (channel.subscribers.size > 0 || this.#channels.get(name) !== channel) return;
      this.#channels.delete(name);
      await this.#query(this.#client, `unlisten ${pg.escapeIdentifier(name)}`).catch(() => {});
    };
    try {
      await channel.open;
    } catch (error) {
      await unsubscribe();
      throw error;
    }
    return unsubscribe;
  }

  #openChannel(name: string): Channel {
    const listen = `listen ${pg.escapeIdentifier(name)}`;
    const open = this.#ensureConnected().then(() => this.#query(this.#client, listen));
    const channel: Channel = { subscribers: new Set(), open };
    this.#channels.set(name, channel);
    return channel;
  }

  /** Holds the lock of a worker id until the returned function is called, or until this process ends. */
  async holdLiveness(workerId: string): Promise<() => Promise<void>> {
    await this.#ensureConnected();
    this.#liveWorkers.add(workerId);
    if (this.#client) await this.#takeLock(this.#client, workerId);
    return async () => {
      this.#liveWorkers.delete(workerId);
      this.#locksToRetry.delete(workerId);
      await this.#query(this.#client, this.#options.releaseLiveness, [workerId]).catch(() => {});
    };
  }

  /**
   * Runs `work` while this process holds the advisory lock that the statement `lock` tries to take. Returns null when
   * another process holds the lock. It uses this connection, because the pool may close one of its own at any time, and
   * the session lock would be lost without notice.
   */
  async exclusively<T>(
    lock: string,
    unlock: string,
    values: unknown[],
    work: () => Promise<T>,
  ): Promise<T | null> {
    await this.#ensureConnected();
    const client = this.#client;
    const rows = await this.#query<{ acquired: boolean }>(client, lock, values);
    if (!rows[0]?.acquired) return null;
    try {
      return await work();
    } finally {
      await this.#query(client, unlock, values).catch(() => {});
    }
  }

  /** Checks this connection, because another connection was found dead. */
  probe(): void {
    void this.#check();
  }

  /** Closes the connection. Waits at most `timeoutMs` for the server to close it too. */
  async close(timeoutMs: number): Promise<void> {
    this.#closing.abort();
    if (this.#probe) clearInterval(this.#probe);
    const client = this.#client;
    this.#client = null;
    if (client) await closeClient(client, timeoutMs);
  }

  get #closed(): boolean {
    return this.#closing.signal.aborted;
  }

  #ensureConnected(): Promise<void> {
    if (this.#client || this.#closed) return Promise.resolve();
    this.#connecting ??= this.#connect().finally(() => {
      this.#connecting = null;
    });
    return this.#connecting;
  }

  async #connect(): Promise<void> {
    const client = new Client(this.#options.config);
    client.on("error", (error) => this.#onLost(client, error));
    client.on("end", () => this.#onLost(client, null));
    client.on("notification", ({ channel, payload = "" }) => {
      for (const subscriber of this.#channels.get(channel)?.subscribers ?? []) subscriber(payload);
    });
    try {
      await client.connect();
      for (const workerId of this.#liveWorkers) await this.#takeLock(client, workerId);
      for (const channel of this.#channels.keys())
        await this.#query(client, `listen ${pg.escapeIdentifier(channel)}`);
    } catch (error) {
      void closeClient(client, 0);
      throw markUnavailable(explainPooler(error));
    }
    if (this.#closed) return closeClient(client, 0);
    this.#client = client;
    this.#probe ??= setInterval(() => void this.#check(), probeEveryMs).unref();
  }

  /**
   * Runs one statement at a time per connection, as pg requires: queues that start at the same time, a sweep and the
   * probe all call this. Returns no rows if there is no connection.
   */
  #query<Row extends pg.QueryResultRow>(
    client: pg.Client | null,
    text: string,
    values: unknown[] = [],
  ): Promise<Row[]> {
    if (!client) return Promise.resolve([]);
    const previous = this.#lastStatements.get(client) ?? Promise.resolve();
    const answer = previous.then(async () => {
      try {
        return (await client.query<Row>(text, values)).rows;
      } catch (error) {
        throw markUnavailable(error);
      }
    });
    this.#lastStatements.set(
      client,
      answer.catch(() => {}),
    );
    return answer;
  }

  /**
   * Tries to take the lock, and never waits for it. After a half-open connection the server keeps the old session and
   * its lock until it notices the failure itself, which may take hours. Until then the old session's lock shows that
   * the worker lives, and this process tries again.
   */
  async #takeLock(client: pg.Client, workerId: string): Promise<void> {
    const rows = await this.#query<{ acquired: boolean }>(client, this.#options.holdLiveness, [workerId]);
    if (rows[0]?.acquired) {
      this.#locksToRetry.delete(workerId);
      return;
    }
    this.#locksToRetry.add(workerId);
    setTimeout(() => void this.#check(), lockRetryMs).unref();
  }

  /** The events `error` and `end` and a failed probe call this. Only the first call for the current client counts. */
  #onLost(client: pg.Client, error: Error | null): void {
    if (this.#client !== client) return;
    this.#client = null;
    void closeClient(client, 0);
    if (this.#closed) return;
    this.#options.problems.failed({
      source,
      error: error ?? new Error("Connection terminated by the server"),
      message: "listening connection lost, reconnecting",
      kind: outage,
    });
    void this.#reconnect();
  }

  async #reconnect(): Promise<void> {
    for (let attempt = 0; !this.#closed && !this.#client; attempt++) {
      await sleep(backoffMs(attempt), this.#closing.signal);
      if (this.#closed) return;
      try {
        await this.#ensureConnected();
      } catch (error) {
        this.#options.logger.debug(describe(error), "listening connection could not be restored yet");
        continue;
      }
      if (this.#closed) return;
      this.#options.logger.debug({}, "listening connection restored");
      this.#options.problems.succeeded(source);
      for (const { subscribers } of this.#channels.values())
        for (const subscriber of subscribers) subscriber(null);
    }
  }

  async #check(): Promise<void> {
    const client = this.#client;
    if (!client || this.#isChecking) return;
    this.#isChecking = true;
    let began = performance.now();
    const onTimeout = () => {
      // Timers fire before sockets are read. After a pause of this process (SIGSTOP, a blocked event loop) the response
      // may be there but unread, and closing the connection would release the locks that show that this process lives.
      if (performance.now() - began > 1.5 * probeTimeoutMs) {
        began = performance.now();
        timer = setTimeout(onTimeout, probeTimeoutMs).unref();
        return;
      }
      const text = `no answer to a probe within ${probeTimeoutMs / 1000} s`;
      this.#options.onUnresponsive();
      this.#onLost(client, Object.assign(new Error(text), { code: "ETIMEDOUT" }));
    };
    let timer = setTimeout(onTimeout, probeTimeoutMs).unref();
    try {
      await this.#query(client, "select 1");
      for (const workerId of [...this.#locksToRetry]) await this.#takeLock(client, workerId);
    } catch (error) {
      this.#options.logger.debug(describe(error), "the probe of the listening connection failed");
    }
    clearTimeout(timer);
    this.#isChecking = false;
  }
}
