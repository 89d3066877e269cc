/**
 * The one LISTEN connection of a process and server (P-22). It also holds the advisory locks by which other processes
 * see that this one lives: both end with the connection, whatever happens to the process.
 *
 * It is opened with the first subscription, probed (a socket may be dead without anyone being told), and comes back by
 * itself; after every return each subscriber is called once, because notifications were missed meanwhile.
 */

import pg from "pg";
import { backoffMs } from "../backoff.js";
import { describe, type Logger } from "../logger.js";
import type { ProblemLog } from "../problem-log.js";
import { Client, type ClientOptions } from "./client.js";
import { explainPooler, hangUp, markUnavailable, sleep } from "./connection.js";

const probeEveryMs = 10_000;
const probeTimeoutMs = 5_000;
const lockAgainMs = 2_000;

/** What the listening connection is called in the log of problems. */
const source = "listener";
/** The kind of problem that the pool's connections and this one share: an outage is logged once. */
export const outage = "outage";

export interface ListenerOptions {
  config: ClientOptions;
  /** Statement that tries for the lock of a worker id ($1) and answers `got`, and the one that releases it. */
  vouch: string;
  unvouch: string;
  /** The connection does not answer: it is lost, and others may be. */
  silent: () => void;
  logger: Logger;
  problems: ProblemLog;
}

/** Takes a notification's payload, or null after a reconnect: some may have been missed. */
type Subscriber = (payload: string | null) => void;

interface Channel {
  readonly subscribers: Set<Subscriber>;
  /** Resolves when the server listens: who joins a channel that is being opened may not believe to be heard before. */
  open: Promise<unknown>;
}

export class Listener {
  readonly #options: ListenerOptions;
  readonly #channels = new Map<string, Channel>();
  readonly #vouched = new Set<string>();
  /** Vouched for, but the lock is still with a connection of ours that the server believes alive. */
  readonly #owed = new Set<string>();
  readonly #closing = new AbortController();
  /** Resolves when the connection's last statement so far has been answered. */
  readonly #turns = new WeakMap<pg.Client, Promise<unknown>>();
  #client: pg.Client | null = null;
  #connecting: Promise<void> | null = null;
  #probe: NodeJS.Timeout | null = null;
  #checking = false;

  constructor(options: ListenerOptions) {
    this.#options = options;
  }

  /** Notifications arrive, for all that is known. */
  get isUp(): boolean {
    return this.#client !== null;
  }

  /** Calls `subscriber` at each notification of the channel and after each reconnect. */
  async subscribe(name: string, subscriber: Subscriber): Promise<() => Promise<void>> {
    const channel = this.#channels.get(name) ?? this.#openChannel(name);
    channel.subscribers.add(subscriber);
    const leave = async () => {
      channel.subscribers.delete(subscriber);
      if (channel.subscribers.size > 0 || this.#channels.get(name) !== channel) return;
      this.#channels.delete(name);
      await this.#ask(this.#client, `unlisten ${pg.escapeIdentifier(name)}`).catch(() => {});
    };
    try {
      await channel.open;
    } catch (error) {
      await leave();
      throw error;
    }
    return leave;
  }

  #openChannel(name: string): Channel {
    const isOpen = this.#ready().then(() => this.#ask(this.#client, `listen ${pg.escapeIdentifier(name)}`));
    const channel: Channel = { subscribers: new Set(), open: isOpen };
    this.#channels.set(name, channel);
    return channel;
  }

  /** Holds the lock of a worker id until let go, or until this process ends. */
  async vouchFor(workerId: string): Promise<() => Promise<void>> {
    await this.#ready();
    this.#vouched.add(workerId);
    if (this.#client) await this.#takeLock(this.#client, workerId);
    return async () => {
      this.#vouched.delete(workerId);
      this.#owed.delete(workerId);
      await this.#ask(this.#client, this.#options.unvouch, [workerId]).catch(() => {});
    };
  }

  /**
   * Runs `work` while this process alone holds the advisory lock that `lock` tries for; null when another has it. On
   * this connection because a pooled one may be recycled under a session lock (D-15).
   */
  async exclusively<T>(
    lock: string,
    unlock: string,
    values: unknown[],
    work: () => Promise<T>,
  ): Promise<T | null> {
    await this.#ready();
    const client = this.#client;
    const rows = await this.#ask<{ got: boolean }>(client, lock, values);
    if (!rows[0]?.got) return null;
    try {
      return await work();
    } finally {
      await this.#ask(client, unlock, values).catch(() => {});
    }
  }

  /** Another connection was found dead: is this one, too? */
  probe(): void {
    void this.#check();
  }

  /** Waits at most `patience` ms for the server's goodbye. */
  async close(patience: number): Promise<void> {
    this.#closing.abort();
    if (this.#probe) clearInterval(this.#probe);
    const client = this.#client;
    this.#client = null;
    if (client) await hangUp(client, patience);
  }

  get #closed(): boolean {
    return this.#closing.signal.aborted;
  }

  #ready(): Promise<void> {
    if (this.#client || this.#closed) return Promise.resolve();
    this.#connecting ??= this.#connect().finally(() => {
      this.#connecting = null;
    });
    return this.#connecting;
  }

  async #connect(): Promise<void> {
    const client = new Client(this.#options.config);
    client.on("error", (error) => this.#lost(client, error));
    client.on("end", () => this.#lost(client, null));
    client.on("notification", ({ channel, payload = "" }) => {
      for (const subscriber of this.#channels.get(channel)?.subscribers ?? []) subscriber(payload);
    });
    try {
      await client.connect();
      for (const workerId of this.#vouched) await this.#takeLock(client, workerId);
      for (const channel of this.#channels.keys())
        await this.#ask(client, `listen ${pg.escapeIdentifier(channel)}`);
    } catch (error) {
      void hangUp(client, 0);
      throw markUnavailable(explainPooler(error));
    }
    if (this.#closed) return hangUp(client, 0);
    this.#client = client;
    this.#probe ??= setInterval(() => void this.#check(), probeEveryMs).unref();
  }

  /**
   * One statement at a time per connection, as pg wants it: queues that start at once, a sweep and the probe all come
   * here. Without a connection there is nothing to ask, and the answer is empty.
   */
  #ask<Row extends pg.QueryResultRow>(
    client: pg.Client | null,
    text: string,
    values: unknown[] = [],
  ): Promise<Row[]> {
    if (!client) return Promise.resolve([]);
    const before = this.#turns.get(client) ?? Promise.resolve();
    const answer = before.then(async () => {
      try {
        return (await client.query<Row>(text, values)).rows;
      } catch (error) {
        throw markUnavailable(error);
      }
    });
    this.#turns.set(
      client,
      answer.catch(() => {}),
    );
    return answer;
  }

  /**
   * Never waits: after a half-open connection the server still keeps the old one, with the lock, until it notices for
   * itself, which may take hours. Until then that one vouches, and we try again.
   */
  async #takeLock(client: pg.Client, workerId: string): Promise<void> {
    const rows = await this.#ask<{ got: boolean }>(client, this.#options.vouch, [workerId]);
    if (rows[0]?.got) {
      this.#owed.delete(workerId);
      return;
    }
    this.#owed.add(workerId);
    setTimeout(() => void this.#check(), lockAgainMs).unref();
  }

  /** Two ends of one connection's life both come here; only the first of the present client counts. */
  #lost(client: pg.Client, error: Error | null): void {
    if (this.#client !== client) return;
    this.#client = null;
    void hangUp(client, 0);
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
        await this.#ready();
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
    if (!client || this.#checking) return;
    this.#checking = true;
    let began = performance.now();
    const look = () => {
      // Timers fire before sockets are read: after a pause of this process (SIGSTOP, a blocked event loop) the answer
      // lies there unread, and hanging up would let go of the locks by which others see that this process lives.
      if (performance.now() - began > 1.5 * probeTimeoutMs) {
        began = performance.now();
        late = setTimeout(look, probeTimeoutMs).unref();
        return;
      }
      const text = `no answer to a probe within ${probeTimeoutMs / 1000} s`;
      this.#options.silent();
      this.#lost(client, Object.assign(new Error(text), { code: "ETIMEDOUT" }));
    };
    let late = setTimeout(look, probeTimeoutMs).unref();
    try {
      await this.#ask(client, "select 1");
      for (const workerId of [...this.#owed]) await this.#takeLock(client, workerId);
    } catch (error) {
      this.#options.logger.debug(describe(error), "the probe of the listening connection failed");
    }
    clearTimeout(late);
    this.#checking = false;
  }
}
