/**
 * Finds connections on which an answer will never come: the network has dropped them (a firewall, a failover of the
 * address) without an error. Without this check a statement waits 30 s on such a socket, and meanwhile other workers
 * sweep the jobs whose ends it should have recorded.
 *
 * A slow statement looks the same in this process. Therefore the server is asked on a new connection whether the
 * session works on a statement. If it says twice that the session is idle or gone while this process waits for its
 * answer, the statement or its answer is lost, and the connection is closed.
 */
import type pg from "pg";
import { describe, type Logger } from "../../logger.js";
import { sleep } from "../../timers.js";
import { Client, type ClientOptions, closeSocket } from "./client.js";
import { checkEveryMs, connectTimeoutMs, suspectAfterMs } from "./session-settings.js";

/** A statement that was seen at this many checks has waited for `suspectAfterMs` or up to one interval longer. */
const suspectAfterChecks = suspectAfterMs / checkEveryMs + 1;

/** Maximum pause between two checks: it doubles each time that the server says that it works on the statements. */
const maxPauseMs = 16_000;

export interface DeadConnectionsOptions {
  config: ClientOptions;
  /** The connections of the pool. */
  clients: ReadonlySet<pg.PoolClient>;
  logger: Logger;
  /** Called when a connection was found dead: other connections of this process may be dead too. */
  onDead: () => void;
  signal: AbortSignal;
}

interface Wait {
  /** The statement whose answer pg waits for. If it is another one at the next check, an answer has come. */
  statement: object;
  /** Number of checks in a row at which it was seen. */
  checks: number;
}

interface Suspect {
  client: pg.PoolClient;
  pid: number;
  statement: object;
  /** Bytes received so far. If more arrive, the server has sent a large answer, which is still on a slow network. */
  received: number;
}

export class DeadConnections {
  readonly #options: DeadConnectionsOptions;
  /**
   * The statement that each connection waits for. It is read once a second: to record the time of every statement would
   * cost 3 % of a single enqueue.
   */
  #waits = new Map<pg.PoolClient, Wait>();
  #timer: NodeJS.Timeout | null = null;
  #isChecking = false;
  #pauseMs = checkEveryMs;
  #nextCheckAt = 0;
  /** A connection has become a suspect since the last check. */
  #hasNewSuspect = false;
  /** True if a pooler between the server and this process has its own session numbers. */
  #hasOtherNumbers = false;
  /** True if several servers are acceptable: the one that is asked may not know a session of another one. */
  readonly #mayAskOtherServer: boolean;

  constructor(options: DeadConnectionsOptions) {
    this.#options = options;
    const { candidates, targetSessionAttrs } = options.config;
    const servers = new Set(candidates.map(({ host, port }) => `${host} ${port}`));
    this.#mayAskOtherServer = servers.size > 1 && !["read-write", "primary"].includes(targetSessionAttrs);
  }

  /** True if the server cannot be asked about a session. */
  get cannotAsk(): boolean {
    return this.#hasOtherNumbers || this.#mayAskOtherServer;
  }

  /** Starts to look for dead connections. Must be called for every new connection. */
  start(): void {
    this.#timer ??= setInterval(() => this.#tick(), checkEveryMs).unref();
  }

  /** Notes whether this process knows the session by the same number as the server (`pid`). */
  compare(client: pg.ClientBase, pid: number): void {
    this.#hasOtherNumbers = pidOf(client) !== pid;
  }

  /** Asks at once about all connections that wait for an answer, however short they have waited. */
  suspectAll(): void {
    void this.#check(0);
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
        return [client, { statement, checks: known?.statement === statement ? known.checks + 1 : 1 }];
      }),
    );
    const checks = [...this.#waits.values()].map((wait) => wait.checks);
    if (checks.every((times) => times < suspectAfterChecks)) {
      this.#pauseMs = checkEveryMs;
      this.#nextCheckAt = 0;
      return;
    }
    // The pause between checks may grow only for statements on which the server has said that it works.
    if (checks.includes(suspectAfterChecks)) this.#hasNewSuspect = true;
    if (this.#hasNewSuspect || performance.now() >= this.#nextCheckAt) void this.#check(suspectAfterChecks);
  }

  async #check(minChecks: number): Promise<void> {
    if (this.#isChecking || this.cannotAsk || this.#options.signal.aborted) return;
    this.#hasNewSuspect = false;
    if (this.#suspects(minChecks).length === 0) return;
    this.#isChecking = true;
    try {
      const dead = await this.#findDead(minChecks);
      for (const { client } of dead) closeSocket(client);
      if (dead.length > 0) {
        this.#options.logger.warn(
          { connections: dead.length },
          "closed connections on which the server no longer responds",
        );
        this.#options.onDead();
      }
      this.#pauseMs = dead.length > 0 ? checkEveryMs : Math.min(2 * this.#pauseMs, maxPauseMs);
    } catch (error) {
      // The database itself is unreachable or hangs, so nothing can be said about single connections.
      this.#options.logger.debug(
        describe(error),
        "could not ask the server about connections that do not respond",
      );
    } finally {
      this.#nextCheckAt = performance.now() + this.#pauseMs;
      this.#isChecking = false;
    }
  }

  /** Returns the connections that wait for a statement which was seen at `minChecks` checks or more. */
  #suspects(minChecks: number): Suspect[] {
    return [...waitsOf(this.#options.clients)].flatMap(([client, statement]) => {
      const pid = pidOf(client);
      const known = this.#waits.get(client);
      const checks = known?.statement === statement ? known.checks : 0;
      return pid && checks >= minChecks ? [{ client, pid, statement, received: receivedOn(client) }] : [];
    });
  }

  /** Returns the suspects for which the server says twice that it does not work on their statement. */
  async #findDead(minChecks: number): Promise<Suspect[]> {
    const { config, signal } = this.#options;
    const probe = new Client({ ...config, query_timeout: connectTimeoutMs });
    probe.on("error", () => {});
    try {
      await probe.connect();
      let dead = this.#suspects(minChecks);
      for (let round = 0; round < 2 && dead.length > 0; round++) {
        if (round > 0) await sleep(checkEveryMs, signal);
        const busy = await this.#busySessions(probe, dead);
        if (busy === null) return [];
        dead = dead.filter(
          ({ client, pid, statement, received }) =>
            !busy.has(pid) && statementOf(client) === statement && receivedOn(client) === received,
        );
      }
      return dead;
    } finally {
      void probe.end().catch(() => {});
    }
  }

  /** Returns the sessions that work on a statement or whose state is hidden; null if the server cannot be asked. */
  async #busySessions(probe: pg.Client, suspects: readonly Suspect[]): Promise<Set<number> | null> {
    const { rows } = await probe.query<{ own: number; pid: number | null }>(
      `select pg_backend_pid() as own, a.pid from (values (1)) one left join pg_stat_activity a
         on a.pid = any($1::int[]) and coalesce(a.state, 'unknown') not like 'idle%'`,
      [suspects.map(({ pid }) => pid)],
    );
    this.compare(probe, rows[0]?.own ?? 0);
    return this.cannotAsk ? null : new Set(rows.flatMap(({ pid }) => pid ?? []));
  }
}

const pidOf = (client: pg.ClientBase): number | undefined =>
  (client as unknown as { processID?: number }).processID;

/** Yields each connection that waits for an answer, with its statement. */
function* waitsOf(clients: Iterable<pg.PoolClient>): Generator<[pg.PoolClient, object]> {
  for (const client of clients) {
    const statement = statementOf(client);
    if (statement) yield [client, statement];
  }
}

/** Returns the statement whose answer pg waits for on this connection; null if there is none. */
export const statementOf = (client: pg.ClientBase): object | null =>
  (client as unknown as { _activeQuery?: object | null })._activeQuery ?? null;

const receivedOn = (client: pg.ClientBase): number =>
  (client as unknown as { connection: { stream: { bytesRead: number } } }).connection.stream.bytesRead;
