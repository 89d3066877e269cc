/**
 * Finds connections on which an answer will never come: the network between has dropped them (a firewall, a failover
 * of the address), and no error says so. Without it a statement waits 30 s on such a socket, and what it should have
 * recorded is swept by other workers meanwhile.
 *
 * A slow statement looks the same from here, so the server is asked, on a new connection: it knows whether the session
 * works on a statement. If it twice says that the session is idle or gone while we wait for its answer, our statement
 * or its answer is lost, and the connection is closed.
 */
import type pg from "pg";
import { describe, type Logger } from "../logger.js";
import { Client, type ClientOptions } from "./client.js";
import { closeSocket, sleep } from "./connection.js";
import { connectTimeoutMs, lookEveryMs, suspectAfterMs } from "./session-settings.js";

/** Seen at so many looks, a statement has waited for `suspectAfterMs` at least, and for one look more at most. */
const suspectedFrom = suspectAfterMs / lookEveryMs + 1;

/** While the server says that it works on the statements, it is asked ever less often. */
const longestPauseMs = 16_000;

export interface DeadConnectionsOptions {
  config: ClientOptions;
  /** Those of the pool. */
  clients: ReadonlySet<pg.PoolClient>;
  logger: Logger;
  /** A connection was found dead: others of this process may be, too. */
  found: () => void;
  signal: AbortSignal;
}

interface Wait {
  /** What pg waits for. Another statement later means that an answer has come. */
  statement: object;
  /** At how many looks in a row it was seen. */
  seen: number;
}

interface Suspect {
  client: pg.PoolClient;
  pid: number;
  statement: object;
  /** Bytes that have come so far. More of them later are a large answer on a slow way, which the server has sent off. */
  received: number;
}

export class DeadConnections {
  readonly #options: DeadConnectionsOptions;
  /**
   * What each connection waits for. Looked at once a second: a note of the time for every statement would cost 3 % of
   * a single enqueue.
   */
  #waits = new Map<pg.PoolClient, Wait>();
  #timer: NodeJS.Timeout | null = null;
  #looking = false;
  #pauseMs = lookEveryMs;
  #nextLook = 0;
  /** A pooler between the server and this process has session numbers of its own. */
  #hasOtherNumbers = false;
  /** Of several servers that would do, one may be asked that does not know the session of another. */
  readonly #isAnyServer: boolean;

  constructor(options: DeadConnectionsOptions) {
    this.#options = options;
    const { ways, targetSessionAttrs } = options.config;
    const servers = new Set(ways.map(({ host, port }) => `${host} ${port}`));
    this.#isAnyServer = servers.size > 1 && !["read-write", "primary"].includes(targetSessionAttrs);
  }

  /** The server cannot be asked about a session. */
  get cannotAsk(): boolean {
    return this.#hasOtherNumbers || this.#isAnyServer;
  }

  /** To be called for every new connection. */
  start(): void {
    this.#timer ??= setInterval(() => this.#tick(), lookEveryMs).unref();
  }

  /** `pid`: the server's own number of that session. */
  compare(client: pg.ClientBase, pid: number): void {
    this.#hasOtherNumbers = pidOf(client) !== pid;
  }

  /** Asks at once about all that wait, however short. */
  suspectAll(): void {
    void this.#look(0);
  }

  stop(): void {
    if (this.#timer) clearInterval(this.#timer);
    this.#timer = null;
  }

  #tick(): void {
    const { clients } = this.#options;
    if (clients.size === 0) {
      this.stop();
      return;
    }
    this.#waits = new Map(
      [...waitsOf(clients)].map(([client, statement]) => {
        const known = this.#waits.get(client);
        return [client, { statement, seen: known?.statement === statement ? known.seen + 1 : 1 }];
      }),
    );
    if ([...this.#waits.values()].every(({ seen }) => seen < suspectedFrom)) {
      this.#pauseMs = lookEveryMs;
      this.#nextLook = 0;
    } else if (performance.now() >= this.#nextLook) void this.#look(suspectedFrom);
  }

  async #look(seenFrom: number): Promise<void> {
    if (this.#looking || this.cannotAsk || this.#options.signal.aborted) return;
    if (this.#suspects(seenFrom).length === 0) return;
    this.#looking = true;
    try {
      const dead = await this.#ask(seenFrom);
      for (const { client } of dead) closeSocket(client);
      if (dead.length > 0) {
        this.#options.logger.warn(
          { connections: dead.length },
          "closed connections that the server no longer answers on",
        );
        this.#options.found();
      }
      this.#pauseMs = dead.length > 0 ? lookEveryMs : Math.min(2 * this.#pauseMs, longestPauseMs);
    } catch (error) {
      // The database itself is away or stands still: then nothing can be said about single connections.
      this.#options.logger.debug(describe(error), "could not ask about connections that do not answer");
    } finally {
      this.#nextLook = performance.now() + this.#pauseMs;
      this.#looking = false;
    }
  }

  /** Connections that wait for a statement which was seen so often. */
  #suspects(seenFrom: number): Suspect[] {
    return [...waitsOf(this.#options.clients)].flatMap(([client, statement]) => {
      const pid = pidOf(client);
      const known = this.#waits.get(client);
      const seen = known?.statement === statement ? known.seen : 0;
      return pid && seen >= seenFrom ? [{ client, pid, statement, received: receivedOn(client) }] : [];
    });
  }

  /** Those of which the server says twice that it does not work on what they wait for. */
  async #ask(seenFrom: number): Promise<Suspect[]> {
    const { config, signal } = this.#options;
    const asker = new Client({ ...config, query_timeout: connectTimeoutMs });
    asker.on("error", () => {});
    try {
      await asker.connect();
      let dead = this.#suspects(seenFrom);
      for (let round = 0; round < 2 && dead.length > 0; round++) {
        if (round > 0) await sleep(lookEveryMs, signal);
        const atWork = await this.#atWork(asker, dead);
        if (atWork === null) return [];
        dead = dead.filter(
          ({ client, pid, statement, received }) =>
            !atWork.has(pid) && statementOf(client) === statement && receivedOn(client) === received,
        );
      }
      return dead;
    } finally {
      void asker.end().catch(() => {});
    }
  }

  /** Sessions that work on a statement, or of which the server does not tell; null when it cannot be asked. */
  async #atWork(asker: pg.Client, suspects: readonly Suspect[]): Promise<Set<number> | null> {
    const { rows } = await asker.query<{ own: number; pid: number | null }>(
      `select pg_backend_pid() as own, a.pid from (values (1)) one left join pg_stat_activity a
         on a.pid = any($1::int[]) and coalesce(a.state, 'unknown') not like 'idle%'`,
      [suspects.map(({ pid }) => pid)],
    );
    this.compare(asker, rows[0]?.own ?? 0);
    return this.cannotAsk ? null : new Set(rows.flatMap(({ pid }) => pid ?? []));
  }
}

const pidOf = (client: pg.ClientBase): number | undefined =>
  (client as unknown as { processID?: number }).processID;

/** The connections that wait for an answer, and to which statement. */
function* waitsOf(clients: Iterable<pg.PoolClient>): Generator<[pg.PoolClient, object]> {
  for (const client of clients) {
    const statement = statementOf(client);
    if (statement) yield [client, statement];
  }
}

/** What pg waits for on this connection; null when it waits for nothing. */
export const statementOf = (client: pg.ClientBase): object | null =>
  (client as unknown as { _activeQuery?: object | null })._activeQuery ?? null;

const receivedOn = (client: pg.ClientBase): number =>
  (client as unknown as { connection: { stream: { bytesRead: number } } }).connection.stream.bytesRead;
