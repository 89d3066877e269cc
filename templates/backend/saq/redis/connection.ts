/**
 * The connections of one process to the Redis server that holds the keys of its queues: one connection for commands,
 * one for published messages, and one for each worker that waits for jobs. Queues with the same DSN share them. On a
 * cluster each queue has its own: its keys are in one slot, and slots move between the nodes one by one.
 *
 * A `NodeFinder` returns this server. If the server changes, all connections are opened again, to the new one.
 */
import { setMaxListeners } from "node:events";
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
  isFull,
  isMigrating,
  isMisplaced,
  isOutOfMemory,
  isOutOfService,
  isRedirect,
  isRefused,
  isServerDown,
  isSilent,
  isUnavailable,
  reasonOf,
  wasNotSent,
} from "./errors.js";
import { QueueKeys } from "./keys.js";
import type { Script } from "./lua/script.js";
import { redirectOf, SlotOwner } from "./servers/cluster.js";
import {
  isSameNode,
  NodeConnection,
  nameOfNode,
  type Reply,
  type ServerNode,
} from "./servers/node-connection.js";
import { type NodeFinder, SingleNode } from "./servers/node-finder.js";
import { SentinelMaster } from "./servers/sentinel.js";
import { Subscriber } from "./servers/subscriber.js";

export type { Reply } from "./servers/node-connection.js";

const connectTimeoutMs = 10_000;
/** How long a call waits for a server that cannot be reached, unless it says otherwise. */
const retryTimeoutMs = 8_000;
/** How often a call follows nodes of a cluster that name one another as the owner of its keys. */
const maxRedirects = 5;
/** How soon a command is sent again that a node refuses because its keys are being moved, ms. */
const migrationPauseMs = 200;
/**
 * The server may accept some commands, such as reads, while it refuses others. This long after the last refusal, an
 * accepted command means that it accepts all again, ms. An idle worker sends a script every 3 s.
 */
const refusalMs = 4_000;
/** How often others are asked during an outage whether they can reach the server, ms. */
const watchOutageMs = 1_000;

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

/** Sends a command or script. `asking`: to a node of a cluster that is receiving the keys. */
type Send = (connection: NodeConnection, options: { asking: boolean }) => Promise<Reply>;

export class RedisConnection {
  readonly logger: Logger;
  readonly clock: DatabaseClock;
  /** Address of the server for messages, without the password. */
  readonly name: string;
  readonly isCluster: boolean;
  readonly #address: RedisAddress;
  readonly #finder: NodeFinder;
  readonly #subscriber: Subscriber;
  #users = 0;
  /** The server of the next connection; null if it has to be looked for. */
  #node: Promise<ServerNode> | null = null;
  /** The server that all open connections lead to. */
  #current: ServerNode | null = null;
  /** How often the keys have moved to another server. */
  #moves = 0;
  readonly #connections = new Set<NodeConnection>();
  readonly #commands = new SharedConnection(() => this.#open());
  readonly #closing = new AbortController();
  readonly #problems: ProblemLog;
  #isUnavailable = false;
  /** The last error of an outage that gives a reason. */
  #lastFailure: unknown = null;
  /** When the server refused a command last, by performance.now(). */
  #refusedAt = Number.NEGATIVE_INFINITY;
  /** Since when the server has been reachable without a gap, by performance.now(). */
  #availableSince = 0;
  #isChecked = false;
  #hasAnswered = false;
  /** True while most of the servers that watch this one cannot reach it either. */
  #isDownForAll = false;
  #watchingOutage: Promise<void> | null = null;

  /**
   * `queueName`: the queue whose keys are looked for on a cluster.
   *
   * @throws AddressError if a certificate file that the address names cannot be read
   */
  constructor(dsn: string, logger: Logger, queueName: string) {
    this.#address = parseRedisAddress(dsn);
    this.name = nameOfRedisAddress(this.#address);
    this.isCluster = this.#address.kind === "cluster";
    // The files are read again for each connection. A wrong path is an error of the configuration.
    redisTlsOptions(this.#address);
    this.#finder = newFinder(this.#address, logger, queueName);
    this.logger = logger;
    // In an outage each pending command waits for this signal.
    setMaxListeners(0, this.#closing.signal);
    this.#problems = new ProblemLog(logger);
    this.#subscriber = new Subscriber({
      open: () => this.#open(),
      pause: (ms) => this.pause(ms),
      isClosed: () => this.isClosed,
    });
    this.clock = new DatabaseClock({
      read: async () => clockOf(await this.command(["TIME"])),
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

  /**
   * True if the server itself is down or out of service, so that no other process can use it either. With Sentinels and
   * on a cluster, the error of a connection does not show this, because other processes may use another server already:
   * the Sentinels or the other nodes are asked.
   */
  get isServerDown(): boolean {
    if (!this.#isUnavailable) return false;
    if (!this.#finder.isDown) return isServerDown(this.#lastFailure);
    return this.#isDownForAll && !isFull(this.#lastFailure);
  }

  /**
   * Returns true if most of the Sentinels, or of the masters of the cluster, cannot reach the server. They will replace
   * it soon, although this process may reach it, and the workers on their side continue with their jobs.
   */
  async isCutOff(): Promise<boolean> {
    return this.#isDown();
  }

  /** Changes when the keys have moved to another server. The cursor of a scan is valid only on the previous one. */
  get moves(): number {
    return this.#moves;
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
    this.#finder.close();
    // Connections that are being opened close themselves.
    for (const connection of this.#connections) connection.close();
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
    return this.#call((connection, { asking }) => connection.send(args, { asking }), options);
  }

  /**
   * Runs a script. Sends its text only if the server does not have it. If `args` is a function, it returns the
   * arguments of each try.
   */
  async run(
    script: Script,
    keys: readonly string[],
    args: readonly string[] | (() => readonly string[]),
    options?: RetryOptions,
  ): Promise<Reply> {
    const { sha1, text } = this.isCluster ? script.onCluster : script;
    return this.#call(async (connection, { asking }) => {
      const rest = [String(keys.length), ...keys, ...(typeof args === "function" ? args() : args)];
      try {
        return await connection.send(["EVALSHA", sha1, ...rest], { asking });
      } catch (error) {
        if (!/^NOSCRIPT/.test((error as Error).message)) throw error;
        return connection.send(["EVAL", text, ...rest], { asking });
      }
    }, options);
  }

  /** Opens a connection for commands that block. `close` ends it. */
  async openWaiter(): Promise<{
    send: (args: readonly string[], timeoutMs: number) => Promise<Reply>;
    close: () => void;
  }> {
    const connection = await this.#withRetry(() => this.#open());
    return {
      send: async (args, timeoutMs) => {
        try {
          return await connection.send(args, { timeoutMs });
        } catch (error) {
          const redirect = this.isCluster ? redirectOf(error, connection.node) : null;
          if (redirect && !redirect.isAsk) this.#moveTo(redirect.node);
          else if (isMisplaced(error)) this.#giveUp(connection);
          throw error;
        }
      },
      close: () => connection.close(),
    };
  }

  /**
   * Calls `listener` with the messages of a channel, and `onGap` after an outage in which messages may have been
   * missed. Returns a function that unsubscribes.
   */
  subscribe(
    channel: string,
    listener: (message: string) => void,
    onGap: () => void,
  ): Promise<() => Promise<void>> {
    return this.#withRetry(() => this.#subscriber.subscribe(channel, listener, onGap));
  }

  /** Calls `send` with the connection for commands. Its success ends an outage. */
  #call(send: Send, options?: RetryOptions): Promise<Reply> {
    return this.#withRetry(
      async () => {
        const reply = await this.#sendToOwner(send);
        this.#onAvailable();
        return reply;
      },
      options,
      (error) => this.#onUnavailable(error),
    );
  }

  /**
   * Repeats `attempt` while the server is unavailable. Only the connection for commands says whether it is
   * (`onUnavailable`): the server may have too many clients for another connection, and work for this one.
   */
  async #withRetry<Result>(
    attempt: () => Promise<Result>,
    { timeoutMs = retryTimeoutMs, isRepeatable = true, isWanted = () => true, onRepeat }: RetryOptions = {},
    onUnavailable: (error: unknown) => void = () => {},
  ): Promise<Result> {
    const deadline = performance.now() + timeoutMs;
    for (let tries = 0; ; tries++) {
      try {
        return await attempt();
      } catch (error) {
        if (!isUnavailable(error) || (isRedirect(error) && !this.isCluster)) throw this.#explained(error);
        onUnavailable(error);
        const pauseMs = isMigrating(error) ? migrationPauseMs : backoffMs(tries);
        const mayRetry = isRepeatable || wasNotSent(error);
        if (this.isClosed) throw closedError();
        if (!mayRetry || !isWanted() || performance.now() + pauseMs > deadline)
          throw this.#unavailableError(error);
        if (!wasNotSent(error)) onRepeat?.();
        await this.pause(pauseMs);
      }
    }
  }

  /** Sends a command. On a cluster, follows a node that names another one as the owner of the keys. */
  async #sendToOwner(send: Send): Promise<Reply> {
    for (let redirects = 0; ; redirects++) {
      const connection = await this.#commands.get();
      try {
        return await send(connection, { asking: false });
      } catch (error) {
        if (isMisplaced(error)) this.#giveUp(connection);
        const redirect = this.isCluster ? redirectOf(error, connection.node) : null;
        if (!redirect || redirects === maxRedirects) throw error;
        if (redirect.isAsk) return await this.#ask(redirect.node, send);
        this.#moveTo(redirect.node, connection);
      }
    }
  }

  /** Sends a command to the node of a cluster that is receiving the keys. It is not their owner yet. */
  async #ask(node: ServerNode, send: Send): Promise<Reply> {
    const connection = await this.#openTo(node);
    try {
      return await send(connection, { asking: true });
    } finally {
      connection.close();
    }
  }

  /** Opens a connection to the server that holds the keys. */
  async #open(): Promise<NodeConnection> {
    for (;;) {
      const node = await this.#findNode();
      const moves = this.#moves;
      try {
        const connection = await this.#openTo(node);
        if (moves === this.#moves) return connection;
        connection.close();
      } catch (error) {
        this.#node = null;
        throw error;
      }
    }
  }

  async #openTo(node: ServerNode): Promise<NodeConnection> {
    if (this.isClosed) throw closedError();
    const connection = await NodeConnection.open(node, this.#address, connectTimeoutMs);
    try {
      await this.#finder.check(connection);
      if (this.isClosed) throw closedError();
    } catch (error) {
      connection.close();
      throw error;
    }
    this.#connections.add(connection);
    void connection.ended.then((reason) => {
      this.#connections.delete(connection);
      if (reason === null) return;
      this.#node = null;
      if (this.#commands.isShared(connection)) this.#onUnavailable(reason);
    });
    return connection;
  }

  #findNode(): Promise<ServerNode> {
    if (this.isClosed) return Promise.reject(closedError());
    this.#node ??= this.#find();
    return this.#node;
  }

  async #find(): Promise<ServerNode> {
    try {
      const node = await this.#finder.find();
      if (this.#current) {
        this.#moveTo(node);
      } else {
        this.#current = node;
        this.#finder.watch?.((master) => this.#moveTo(master));
      }
      return node;
    } catch (error) {
      this.#node = null;
      throw error;
    }
  }

  /** Leaves the previous server. `refusing`: its connection for commands, if it still responds. */
  #moveTo(node: ServerNode, refusing?: NodeConnection): void {
    if (this.#current && isSameNode(this.#current, node)) return;
    this.#current = node;
    this.#node = Promise.resolve(node);
    this.#moves++;
    this.#availableSince = performance.now();
    this.#isDownForAll = false;
    this.#lastFailure = null;
    this.#refusedAt = Number.NEGATIVE_INFINITY;
    const server = nameOfNode(node);
    this.logger.info({ server: this.name, node: server }, `Redis: the queue's keys are on ${server} now`);
    this.#commands.forget();
    // The commands that were sent with the refused one are refused too, which is certain only after their responses.
    refusing?.retire();
    for (const connection of this.#connections) if (connection !== refusing) connection.close();
    if (this.#isChecked) void this.#compareClock();
  }

  /** The clocks of two servers differ. */
  async #compareClock(): Promise<void> {
    const sentAt = performance.now();
    const time = await this.command(["TIME"]).catch(() => null);
    if (time !== null) this.clock.compareWith(clockOf(time), sentAt);
  }

  /** This server does not hold the keys any more, or cannot serve them: look for the one that does. */
  #giveUp(connection: NodeConnection): void {
    this.#node = null;
    this.#commands.forget(connection);
    connection.retire();
  }

  /**
   * Refuses a replica, and warns of a server that may delete jobs when its memory is full. A server that refuses INFO
   * is accepted.
   */
  async #checkServer(): Promise<void> {
    if (this.#address.kind === "single") {
      const replication = String(await this.command(["INFO", "replication"]).catch(() => ""));
      if (/^role:slave/m.test(replication) && !/^slave_read_only:0/m.test(replication))
        throw this.#unavailableError(new Error("READONLY"));
    }
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
    const explanation = error instanceof SaqError ? null : this.#explanation(error);
    if (explanation === null) return error;
    return new SaqError(isOutOfMemory(error) ? "database_unavailable" : "config", explanation, {
      cause: error,
    });
  }

  #explanation(error: unknown): string | null {
    return explanationOf(error, this.name, this.#address.kind === "single" ? "single" : "member");
  }

  #unavailableError(cause: unknown): SaqError {
    const explanation =
      this.#explanation(cause) ??
      `Redis at ${this.name} does not answer: ${reasonOf(cause)}${this.#hint(cause)}`;
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
    if (isRefused(error)) this.#refusedAt = performance.now();
    if (hasReason(error)) this.#lastFailure = error;
    if (this.isClosed || this.#isUnavailable) return;
    this.#isUnavailable = true;
    const message = "Redis does not answer, trying again";
    this.#problems.failed({ source: "redis", error: this.#unavailableError(error), message });
    if (this.#finder.isDown) this.#watchingOutage ??= this.#watchOutage();
  }

  async #isDown(state?: { isOutOfService: boolean }): Promise<boolean> {
    return this.#current !== null && (await this.#finder.isDown?.(this.#current, state)) === true;
  }

  async #watchOutage(): Promise<void> {
    while (this.#isUnavailable && !this.isClosed) {
      const server = this.#current;
      const isDown = await this.#isDown({ isOutOfService: isOutOfService(this.#lastFailure) });
      this.#isDownForAll = isDown && server === this.#current && this.#isUnavailable;
      await this.pause(watchOutageMs);
    }
    this.#isDownForAll = false;
    this.#watchingOutage = null;
  }

  #onAvailable(): void {
    this.#hasAnswered = true;
    if (!this.#isUnavailable || performance.now() - this.#refusedAt < refusalMs) return;
    this.#isUnavailable = false;
    this.#isDownForAll = false;
    this.#lastFailure = null;
    this.#availableSince = performance.now();
    this.#problems.succeeded("redis");
  }
}

function newFinder(address: RedisAddress, logger: Logger, queueName: string): NodeFinder {
  const name = nameOfRedisAddress(address);
  if (address.kind === "sentinel") return new SentinelMaster(address, name, logger);
  if (address.kind === "cluster")
    return new SlotOwner(address, name, new QueueKeys(queueName, { isCluster: true }).queued);
  return new SingleNode(address);
}

/** A connection that all calls share. It is opened when it is needed, and again after it has ended. */
class SharedConnection {
  #opening: Promise<NodeConnection> | null = null;
  /** Null while it is being opened. */
  #connection: NodeConnection | null = null;

  constructor(private readonly open: () => Promise<NodeConnection>) {}

  get(): Promise<NodeConnection> {
    this.#opening ??= this.#open();
    return this.#opening;
  }

  isShared(connection: NodeConnection): boolean {
    return connection === this.#connection;
  }

  /** If this connection is shared now, the next `get` opens another one. `connection`: the one that is open, if any. */
  forget(connection = this.#connection): void {
    if (connection === null || connection !== this.#connection) return;
    this.#opening = null;
    this.#connection = null;
  }

  async #open(): Promise<NodeConnection> {
    try {
      const connection = await this.open();
      this.#connection = connection;
      void connection.ended.then(() => this.forget(connection));
      return connection;
    } catch (error) {
      this.#opening = null;
      throw error;
    }
  }
}

const closedError = () => new SaqError("queue_closed", "The queue was closed and cannot be used again");

/** Returns the time in the response to TIME, epoch ms. */
function clockOf(reply: Reply): number {
  const [seconds, micros] = reply as [string, string];
  return Number(seconds) * 1_000 + Number(micros) / 1_000;
}
