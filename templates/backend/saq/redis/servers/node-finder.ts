/** Finds the server that holds the keys of a queue now. With Sentinels and on a cluster, it may change. */
import type { RedisAddress } from "../../redis-address.js";
import type { NodeConnection, ServerNode } from "./node-connection.js";

export interface NodeFinder {
  /**
   * Returns the server that holds the queue's keys.
   *
   * @throws NoServerError if it cannot be found at present
   * @throws SaqError config if the address is wrong
   */
  find(): Promise<ServerNode>;
  /**
   * Rejects if the server of a new connection does not hold the queue's keys.
   *
   * @throws NoServerError
   */
  check(connection: NodeConnection): Promise<void>;
  /** Calls `onMove` when another server is to be used. Without it, only the responses of the servers say so. */
  watch?(onMove: (node: ServerNode) => void): void;
  /**
   * Returns true if no process can use this server: most of the Sentinels, or of the masters of the cluster, cannot
   * reach it and will replace it soon. If it is out of service, as it says itself, they may reach it, but most of them
   * must name it: otherwise it may have been replaced without knowing it. Never rejects. Null for a single server.
   */
  readonly isDown: ((node: ServerNode, state?: { isOutOfService: boolean }) => Promise<boolean>) | null;
  close(): void;
}

/** How long a Sentinel or a node of a cluster may take to connect or to respond, ms. Then the next one is asked. */
export const finderTimeoutMs = 2_000;

/** Returns the items beginning with number `first`; after the last one, it goes on with the first. */
export const inTurn = <Item>(items: readonly Item[], first: number): Item[] => {
  const start = first % items.length;
  return [...items.slice(start), ...items.slice(0, start)];
};

/**
 * Returns true as soon as more than half of `total` votes are true: the others may be those of servers that are on the
 * same dead machine and do not respond. `total` is read after each vote.
 */
export async function isMajority(votes: readonly Promise<boolean>[], total: () => number): Promise<boolean> {
  let yes = 0;
  return new Promise((resolve) => {
    const counted = votes.map(async (vote) => {
      if (await vote) yes++;
      if (yes > total() / 2) resolve(true);
    });
    void Promise.all(counted).then(() => resolve(false));
  });
}

/** The one server that the address names. */
export class SingleNode implements NodeFinder {
  readonly isDown = null;
  readonly #node: ServerNode;

  constructor({ socketPath, nodes: [node] }: RedisAddress) {
    const { host = "localhost", port = 6379 } = node ?? {};
    this.#node = socketPath === undefined ? { host, port } : { path: socketPath };
  }

  async find(): Promise<ServerNode> {
    return this.#node;
  }

  async check(): Promise<void> {}

  close(): void {}
}
