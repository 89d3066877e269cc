/** Asks the nodes of a cluster which of them owns the slot of a queue's keys. */
import { ConfigError } from "../../errors.js";
import type { RedisAddress } from "../../redis-address.js";
import { explanationOf, isUnavailable, NoServerError, reasonOf } from "../errors.js";
import { isSameNode, type Login, NodeConnection, nameOfNode, type ServerNode } from "./node-connection.js";
import { finderTimeoutMs, inTurn, isMajority, type NodeFinder } from "./node-finder.js";

/** Maximum number of masters that are asked whether they can reach the owner of the slot. */
const maxAsked = 9;

/** A range of slots: the first, the last, the owner, then its replicas. */
type SlotRange = [first: number, last: number, ...nodes: [host: unknown, port: number][]];

/** Where a node of a cluster sends a command: to the owner of the keys, or (`isAsk`) to the node that receives them. */
export interface Redirect {
  readonly isAsk: boolean;
  readonly node: ServerNode;
}

/** Returns where the node `from` sends a command; null if the error is no redirect. */
export function redirectOf(error: unknown, from: ServerNode): Redirect | null {
  const [, kind, host, port] = /^(MOVED|ASK) \d+ (.*):(\d+)$/.exec(reasonOf(error)) ?? [];
  return kind === undefined ? null : { isAsk: kind === "ASK", node: nodeOf(host, port, from) };
}

/** A node that does not know the host of another one writes "?" or nothing: it is the host of the node itself. */
const nodeOf = (host: unknown, port: unknown, from: ServerNode): ServerNode => ({
  host:
    typeof host === "string" && host !== "" && host !== "?" ? host : from.path === undefined ? from.host : "",
  port: Number(port),
});

/** Returns by which names CLUSTER NODES knows a node: "ip:port@busport,hostname,...". */
function namesOf(address: string): ServerNode[] {
  const [, ip = "", port, hostname] = /^(.*?):(\d+)@\d*(?:,([^,]*))?/.exec(address) ?? [];
  return [ip, hostname || ip].map((host) => ({ host, port: Number(port) }));
}

export class SlotOwner implements NodeFinder {
  readonly #login: Login;
  /** The nodes of the address. */
  readonly #seeds: readonly ServerNode[];
  /** The nodes that the cluster named last: those of the address may all be replaced while this process runs. */
  #members: readonly ServerNode[] = [];
  /** The masters among them. */
  #masters: readonly ServerNode[] = [];
  /** Number of the node that is asked next. */
  #next = 0;

  constructor(
    address: RedisAddress,
    /** Name of the address for messages, without the password. */
    private readonly name: string,
    /** A key of the queue. All its keys are in the same slot. */
    private readonly key: string,
  ) {
    this.#login = { ...address, database: 0 };
    this.#seeds = address.nodes;
  }

  async find(): Promise<ServerNode> {
    const failures: string[] = [];
    let refusal: ConfigError | null = null;
    // Each call begins with another node: the previous one may be cut off from the others.
    for (const node of inTurn(this.#known(), this.#next++)) {
      try {
        return await this.#ask(node);
      } catch (error) {
        if (error instanceof ConfigError) refusal = error;
        failures.push(`${nameOfNode(node)}: ${reasonOf(error)}`);
      }
    }
    throw (
      refusal ??
      new NoServerError(`no node of the cluster knows the owner of the queue's keys (${failures.join("; ")})`)
    );
  }

  #known(): ServerNode[] {
    const known = new Map([...this.#members, ...this.#seeds].map((node) => [nameOfNode(node), node]));
    return [...known.values()];
  }

  async #ask(node: ServerNode): Promise<ServerNode> {
    let connection: NodeConnection | null = null;
    try {
      connection = await NodeConnection.open(node, this.#login, finderTimeoutMs);
      const timeoutMs = finderTimeoutMs;
      const slot = Number(await connection.send(["CLUSTER", "KEYSLOT", this.key], { timeoutMs }));
      const ranges = (await connection.send(["CLUSTER", "SLOTS"], { timeoutMs })) as SlotRange[];
      const namedNode = ([host, port]: [unknown, number]) => nodeOf(host, port, node);
      this.#members = ranges.flatMap(([, , ...nodes]) => nodes.map(namedNode));
      const masters = ranges.flatMap(([, , master]) => (master ? [namedNode(master)] : []));
      this.#masters = [...new Map(masters.map((master) => [nameOfNode(master), master])).values()];
      const [, , owner] = ranges.find(([first, last]) => first <= slot && slot <= last) ?? [];
      if (!owner) throw new NoServerError(`no node owns slot ${slot}, to which the queue's keys belong`);
      return namedNode(owner);
    } catch (error) {
      throw this.#explained(error);
    } finally {
      connection?.close();
    }
  }

  #explained(error: unknown): unknown {
    const explanation = /cluster support disabled/.test(reasonOf(error))
      ? `Redis at ${this.name} is no cluster; begin the DSN with redis:// (with TLS: rediss://) and name one server`
      : explanationOf(error, this.name);
    return explanation === null || isUnavailable(error)
      ? error
      : new ConfigError(explanation, { cause: error });
  }

  isDown = async (owner: ServerNode, { isOutOfService } = { isOutOfService: false }): Promise<boolean> => {
    // Only masters vote about a fail-over, the owner too.
    const others = this.#masters.filter((node) => !isSameNode(node, owner)).slice(0, maxAsked);
    const asked = others.map((node) => this.#viewOf(node, owner));
    const isFailed = Promise.all(asked).then((views) => views.includes("failed"));
    const votes = asked.map(async (view) => {
      const seen = await view;
      return seen !== null && (seen !== "reachable" || isOutOfService);
    });
    // The owner itself has said that it is out of service.
    if (isOutOfService) votes.push(Promise.resolve(true));
    const total = isOutOfService ? votes.length : this.#masters.length;
    return (await isMajority(votes, () => total)) || isFailed;
  };

  /**
   * Returns how a node sees the owner. `failed`: most of the masters cannot reach it. Null if the node does not
   * respond, or does not know the owner.
   */
  async #viewOf(node: ServerNode, owner: ServerNode): Promise<"reachable" | "unreachable" | "failed" | null> {
    let connection: NodeConnection | null = null;
    try {
      connection = await NodeConnection.open(node, this.#login, finderTimeoutMs);
      const table = String(await connection.send(["CLUSTER", "NODES"], { timeoutMs: finderTimeoutMs }));
      for (const line of table.split("\n")) {
        const [, address = "", flags = "", , , , , link, ...slots] = line.split(" ");
        if (!namesOf(address).some((named) => isSameNode(named, owner))) continue;
        if (/\bfail\b(?!\?)/.test(flags)) return "failed";
        // Another node has taken its place.
        if (!flags.includes("master") || slots.length === 0) return null;
        return flags.includes("fail?") || link === "disconnected" ? "unreachable" : "reachable";
      }
      return null;
    } catch {
      return null;
    } finally {
      connection?.close();
    }
  }

  /** A node that does not own the slot says so in its response to each command. */
  async check(): Promise<void> {}

  close(): void {}
}
