/**
 * One connection to one Redis server. A lost connection is not opened again: its user opens another one, perhaps to
 * another server, because the reason for the loss may be a fail-over or a move of the keys.
 */
import type { RedisClientType } from "@redis/client";
import { type RedisAddress, redisTlsOptions } from "../../redis-address.js";
import { RedisTimeoutError } from "../errors.js";

/** What a command or a script returns. Each caller knows the form of its own reply. */
export type Reply = unknown;

/** Returns a reply of alternating names and values as a map. */
export const mapOf = (flat: readonly string[]): Map<string, string> =>
  new Map(flat.flatMap((name, index) => (index % 2 === 0 ? [[name, flat[index + 1] ?? ""]] : [])));

/** Where a server listens: a host and a port, or a Unix socket. */
export type ServerNode =
  | { readonly host: string; readonly port: number; readonly path?: undefined }
  | { readonly path: string };

export const nameOfNode = (node: ServerNode): string => {
  if (node.path !== undefined) return node.path;
  return `${node.host.includes(":") ? `[${node.host}]` : node.host}:${node.port}`;
};

export const isSameNode = (a: ServerNode, b: ServerNode): boolean => nameOfNode(a) === nameOfNode(b);

/** How to log in to a server. */
export interface Login extends Pick<RedisAddress, "username" | "password" | "tls"> {
  /** Number of the logical database. */
  readonly database: number;
}

interface SendOptions {
  /** A command without a response for this long has failed, and its connection counts as lost, ms. */
  timeoutMs?: number;
  /** Sends ASKING first: the server is receiving the key's slot, and serves it only after this command. */
  asking?: boolean;
}

const defaultTimeoutMs = 8_000;
const keepAliveMs = 5_000;
/** How often the client sends PING on each connection. */
const pingMs = 10_000;

export class NodeConnection {
  /** Resolves when the connection ends: with the reason if it was lost, with null if its user has closed it. */
  readonly ended: Promise<unknown>;
  readonly #client: RedisClientType;
  #end: (reason: unknown) => void = () => {};

  private constructor(
    readonly node: ServerNode,
    client: RedisClientType,
  ) {
    this.#client = client;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    client.on("error", (error: unknown) => {
      this.#end(error);
      // Not in this turn: the client first rejects the pending commands with this error.
      setImmediate(() => client.destroy());
    });
  }

  /** Connects and logs in. `timeoutMs` limits both together. */
  static async open(
    node: ServerNode,
    { username, password, database, tls }: Login,
    timeoutMs: number,
  ): Promise<NodeConnection> {
    const { createClient } = await loadClient();
    const client = createClient({
      RESP: 2,
      ...(username !== undefined && { username }),
      ...(password !== undefined && { password }),
      database,
      disableOfflineQueue: true,
      // An idle connection through a firewall may be dead without a packet that says so.
      pingInterval: pingMs,
      socket: {
        ...socketOf(node, tls),
        connectTimeout: timeoutMs,
        // Also for a connection that only receives published messages: the pings keep a living one from being silent.
        socketTimeout: 3 * pingMs,
        reconnectStrategy: false,
      },
    }) as unknown as RedisClientType;
    // If the other side is no Redis, the client says so in an event, and then only that the socket was closed.
    let reason: unknown;
    const onError = (error: unknown) => {
      reason ??= error;
    };
    client.on("error", onError);
    let isConnected = false;
    client.once("connect", () => {
      isConnected = true;
    });
    let timer: NodeJS.Timeout | undefined;
    try {
      // The client's own timeout does not include the login, and a server that is paused never responds to it.
      const timeout = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new RedisTimeoutError(timeoutMs / 1_000)), timeoutMs);
      });
      await Promise.race([client.connect(), timeout]);
    } catch (error) {
      // `destroy` would leave a socket open that is being opened at this moment, and the process would not end.
      if (isConnected || !client.isOpen) client.destroy();
      else client.once("connect", () => client.destroy());
      throw reason ?? error;
    } finally {
      clearTimeout(timer);
    }
    const connection = new NodeConnection(node, client);
    client.off("error", onError);
    return connection;
  }

  async send(
    args: readonly string[],
    { timeoutMs = defaultTimeoutMs, asking = false }: SendOptions = {},
  ): Promise<Reply> {
    return this.#withTimeout(timeoutMs, () => {
      // Both commands are sent in this order, because nothing is awaited between them.
      if (asking) this.#client.sendCommand(["ASKING"]).catch(() => {});
      return this.#client.sendCommand(args);
    });
  }

  /** If there is no response in time, the connection counts as lost. */
  async #withTimeout<Result>(timeoutMs: number, call: () => Promise<Result>): Promise<Result> {
    let timer: NodeJS.Timeout | undefined;
    let isOver = false;
    const timeout = new Promise<never>((_, reject) => {
      const fail = () => {
        if (isOver) return;
        const error = new RedisTimeoutError(timeoutMs / 1_000);
        reject(error);
        // The connection may be dead although no packet says so.
        this.lose(error);
      };
      // If this process was paused, for example by a task that blocks the event loop, the response may have arrived and
      // not have been read yet: it is read before `setImmediate` calls back.
      timer = setTimeout(() => setImmediate(fail), timeoutMs);
    });
    try {
      return await Promise.race([call(), timeout]);
    } finally {
      isOver = true;
      clearTimeout(timer);
    }
  }

  async subscribe(channel: string, listener: (message: string) => void): Promise<void> {
    await this.#withTimeout(defaultTimeoutMs, () => this.#client.subscribe(channel, listener));
  }

  async unsubscribe(channel: string, listener: (message: string) => void): Promise<void> {
    await this.#client.unsubscribe(channel, listener);
  }

  /** Gives the connection up for this reason. Pending commands fail. */
  lose(reason: unknown): void {
    this.#end(reason);
    this.#client.destroy();
  }

  /** Closes the connection at once. Pending commands fail. */
  close(): void {
    this.lose(null);
  }

  /** Closes the connection after the responses to the commands that were sent. */
  retire(): void {
    this.#end(null);
    this.#client.close().catch(() => {});
  }
}

let clientModule: Promise<typeof import("@redis/client")> | null = null;

/** Loads the client once. A process without a queue on Redis never loads it. */
function loadClient(): Promise<typeof import("@redis/client")> {
  clientModule ??= import("@redis/client");
  return clientModule;
}

function socketOf(node: ServerNode, tls: RedisAddress["tls"]) {
  if (node.path !== undefined) return { path: node.path, tls: false as const };
  return {
    host: node.host,
    port: node.port,
    keepAlive: true,
    keepAliveInitialDelay: keepAliveMs,
    ...(tls ? { ...redisTlsOptions({ tls }), tls: true as const } : {}),
  };
}
