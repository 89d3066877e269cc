/** Asks the Sentinels which server is the master, also while its connections work: it may have been replaced. */
import { ConfigError } from "../../errors.js";
import type { Logger } from "../../logger.js";
import { ProblemLog } from "../../problem-log.js";
import type { RedisAddress } from "../../redis-address.js";
import { sleep } from "../../timers.js";
import { explanationOf, isUnavailable, NoServerError, reasonOf } from "../errors.js";
import {
  isSameNode,
  type Login,
  mapOf,
  NodeConnection,
  nameOfNode,
  type ServerNode,
} from "./node-connection.js";
import { finderTimeoutMs, inTurn, isMajority, type NodeFinder } from "./node-finder.js";

/**
 * How often a Sentinel is asked, ms. A server that was demoted without a lost connection keeps blocked and subscribed
 * connections open, and a server that is cut off from the Sentinels does not even refuse writes.
 */
const watchMs = 1_000;

/** How old the last response of the master to a Sentinel may be, ms. A Sentinel sends a PING every second. */
const silentMs = 3_000;

/** What a Sentinel says about the master. */
interface MasterState {
  /** The Sentinel cannot reach it. */
  readonly isUnreachable: boolean;
  /** How many Sentinels there are. */
  readonly sentinels: number;
}

interface Answer {
  readonly master: ServerNode;
  /** To the Sentinel that responded. */
  readonly connection: NodeConnection;
}

export class SentinelMaster implements NodeFinder {
  readonly #sentinels: readonly ServerNode[];
  readonly #masterName: string;
  readonly #login: Login;
  readonly #closing = new AbortController();
  /** The master that was found last. */
  #master: ServerNode | null = null;
  /** Number of the Sentinel that was asked last. */
  #last: number;

  constructor(
    { nodes, sentinelName = "", sentinelUsername, sentinelPassword, tls }: RedisAddress,
    /** Name of the address for messages, without the password. */
    private readonly name: string,
    private readonly logger: Logger,
  ) {
    this.#sentinels = nodes;
    this.#last = nodes.length - 1;
    this.#masterName = sentinelName;
    this.#login = { username: sentinelUsername, password: sentinelPassword, tls, database: 0 };
  }

  async find(): Promise<ServerNode> {
    // The Sentinel that was asked last may know less than the others, for instance because it is cut off from them.
    this.#last++;
    const { master, connection } = await this.#ask(null);
    connection.close();
    this.#master = master;
    return master;
  }

  /** Asks over an open connection, or else each Sentinel until one knows the master. */
  async #ask(connection: NodeConnection | null): Promise<Answer> {
    const known = connection && (await this.#masterOf(connection).catch(() => null));
    if (connection && known) return { master: known, connection };
    connection?.close();
    const failures: string[] = [];
    let refusal: ConfigError | null = null;
    for (const sentinel of inTurn(this.#sentinels, this.#last)) {
      let open: NodeConnection | null = null;
      try {
        open = await NodeConnection.open(sentinel, this.#login, finderTimeoutMs);
        const master = await this.#masterOf(open);
        if (this.#closing.signal.aborted) throw new NoServerError("the queue was closed");
        this.#last = this.#sentinels.indexOf(sentinel);
        return { master, connection: open };
      } catch (error) {
        open?.close();
        const explanation = explanationOf(error, nameOfNode(sentinel), "sentinel");
        if (error instanceof ConfigError) refusal = error;
        else if (explanation && !isUnavailable(error))
          refusal = new ConfigError(explanation, { cause: error });
        failures.push(`${nameOfNode(sentinel)}: ${reasonOf(error)}`);
      }
    }
    throw refusal ?? new NoServerError(`no Sentinel answers (${failures.join("; ")})`);
  }

  async #masterOf(sentinel: NodeConnection): Promise<ServerNode> {
    const question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", this.#masterName];
    const reply = await sentinel.send(question, { timeoutMs: finderTimeoutMs });
    if (reply) {
      const [host, port] = reply as [string, string];
      return { host, port: Number(port) };
    }
    const known = (await this.#masters(sentinel)).map((state) => JSON.stringify(state.get("name")));
    throw new ConfigError(
      `The Sentinels of ${this.name} know no server with the name ${JSON.stringify(this.#masterName)} ` +
        `(known: ${known.join(", ") || "none"}); correct the name in the DSN, after the Sentinels`,
    );
  }

  async check(connection: NodeConnection): Promise<void> {
    const reply = await connection.send(["ROLE"]).catch((error: unknown) => {
      // A user without the right to send ROLE: then only the Sentinels say what the server is.
      if (/^NOPERM/.test(reasonOf(error))) return ["master"];
      throw error;
    });
    const [role] = reply as [string];
    if (role === "master") return;
    throw new NoServerError(
      `${nameOfNode(connection.node)}, which a Sentinel names as the master, is a replica`,
    );
  }

  watch(onMove: (node: ServerNode) => void): void {
    void this.#watch(onMove);
  }

  async #watch(onMove: (node: ServerNode) => void): Promise<void> {
    const problems = new ProblemLog(this.logger);
    const [source, message] = [
      "sentinel",
      "no Sentinel of Redis answers, so a fail-over would not be noticed",
    ];
    let connection: NodeConnection | null = null;
    /** Another master that one Sentinel has named. A Sentinel that is cut off from the others names an old one. */
    let candidate: ServerNode | null = null;
    for (;;) {
      if (!candidate) await sleep(watchMs, this.#closing.signal);
      if (this.#closing.signal.aborted) break;
      try {
        const answer: Answer = await this.#ask(connection);
        connection = answer.connection;
        problems.succeeded(source);
        const isKnown = this.#master !== null && isSameNode(this.#master, answer.master);
        if (isKnown || (candidate && isSameNode(candidate, answer.master))) {
          candidate = null;
          this.#master = answer.master;
          onMove(answer.master);
        } else {
          // The next one is asked at once. If it names a third server, they do not agree yet.
          candidate = candidate ? null : answer.master;
          connection.close();
          connection = null;
          this.#last++;
        }
      } catch (error) {
        connection = null;
        candidate = null;
        if (!this.#closing.signal.aborted)
          problems.failed({ source, error, message, fields: { server: this.name }, kind: source });
      }
    }
    connection?.close();
  }

  isDown = (node: ServerNode, { isOutOfService } = { isOutOfService: false }): Promise<boolean> => {
    // An address may name only some of the Sentinels. The configured quorum may be less than a majority.
    let total = this.#sentinels.length;
    const votes = this.#sentinels.map(async (sentinel) => {
      const state = await this.#stateAt(sentinel, node);
      total = Math.max(total, state?.sentinels ?? 0);
      return state !== null && (state.isUnreachable || isOutOfService);
    });
    return isMajority(votes, () => total);
  };

  /** Returns null if the Sentinel does not respond, or if another server is its master. */
  async #stateAt(sentinel: ServerNode, master: ServerNode): Promise<MasterState | null> {
    let connection: NodeConnection | null = null;
    try {
      connection = await NodeConnection.open(sentinel, this.#login, finderTimeoutMs);
      const states = await this.#masters(connection);
      const state = states.find((one) => one.get("name") === this.#masterName);
      const named = { host: state?.get("ip") ?? "", port: Number(state?.get("port")) };
      if (!state || !isSameNode(named, master)) return null;
      return {
        isUnreachable:
          /\b(s_down|o_down|disconnected)\b/.test(state.get("flags") ?? "") ||
          Number(state.get("last-ok-ping-reply")) > silentMs,
        sentinels: Number(state.get("num-other-sentinels")) + 1,
      };
    } catch {
      return null;
    } finally {
      connection?.close();
    }
  }

  /** Returns the state of each master that a Sentinel watches. */
  async #masters(sentinel: NodeConnection): Promise<Map<string, string>[]> {
    const replies = await sentinel.send(["SENTINEL", "MASTERS"], { timeoutMs: finderTimeoutMs });
    return (replies as string[][]).map((reply) => mapOf(reply));
  }

  close(): void {
    this.#closing.abort();
  }
}
