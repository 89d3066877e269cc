/** Asks the Sentinels which server is the master, also while its connections work: it may have been replaced. */
import { ConfigError } from "../../errors.js";
import type { Logger } from "../../logger.js";
import { ProblemLog } from "../../problem-log.js";
import type { RedisAddress } from "../../redis-address.js";
import { sleep } from "../../timers.js";
import { explanationOf, isUnavailable, NoServerError, reasonOf } from "../errors.js";
import { isSameNode, type Login, NodeConnection, nameOfNode, type ServerNode } from "./node-connection.js";
import { finderTimeoutMs, inTurn, type NodeFinder } from "./node-finder.js";

/**
 * How often a Sentinel is asked, ms. A server that was demoted without a lost connection keeps blocked and subscribed
 * connections open, and a server that is cut off from the Sentinels does not even refuse writes.
 */
const watchMs = 1_000;

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
    const ask = (...args: string[]) => sentinel.send(["SENTINEL", ...args], { timeoutMs: finderTimeoutMs });
    const address = (await ask("GET-MASTER-ADDR-BY-NAME", this.#masterName)) as [string, string] | null;
    if (address) return { host: address[0], port: Number(address[1]) };
    const known = ((await ask("MASTERS")) as string[][]).map(([, name]) => JSON.stringify(name));
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

  close(): void {
    this.#closing.abort();
  }
}
