/** Starts a real Redis with Sentinels, and a real Redis Cluster, on free ports of 127.0.0.1. Nothing is on disk. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { mapOf } from "../../../templates/backend/saq/redis/servers/node-connection.js";
import { emptyFolder } from "../../support/folders.js";
import { freePort } from "../../support/free-port.js";
import {
  connectRedis,
  type RedisClient,
  type RedisServer,
  type RedisServerOptions,
  startRedisServer,
} from "../../support/redis.js";
import { eventually } from "./processes/child.js";

/** The tasks of the tests. */
export const tasks = {
  double: async (_ctx: unknown, { n }: { n: number }) => 2 * n,
  slow: async ({ signal }: { signal: AbortSignal }) => {
    await sleep(60_000, undefined, { signal });
  },
};

/** The log line at the begin of an outage. */
export const outage = "Redis does not answer, trying again";

/** Where a server runs. */
type Place = Pick<RedisServerOptions, "host" | "within">;

/** A server that a test may kill, pause and start again. */
export class TestServer {
  #server: RedisServer;
  #client: RedisClient;

  private constructor(
    readonly folder: string,
    readonly settings: readonly string[],
    readonly configFile: string | undefined,
    readonly place: Place,
    server: RedisServer,
    client: RedisClient,
  ) {
    this.#server = server;
    this.#client = client;
  }

  /** `config`: the text of a configuration file that the server may change. */
  static async start(
    settings: readonly string[],
    { config, password, ...place }: { config?: string; password?: string } & Place = {},
  ): Promise<TestServer> {
    const folder = emptyFolder();
    const configFile = config === undefined ? undefined : join(folder, "server.conf");
    if (configFile !== undefined && config !== undefined) writeFileSync(configFile, config);
    const given = { ...(configFile && { configFile }), ...(password !== undefined && { password }) };
    const server = await startRedisServer({ folder, settings, port: await freePort(), ...given, ...place });
    return new TestServer(folder, settings, configFile, place, server, await connectRedis(server.url));
  }

  get port(): number {
    return this.#server.port;
  }

  get name(): string {
    return `${this.place.host ?? "127.0.0.1"}:${this.port}`;
  }

  get client(): RedisClient {
    return this.#client;
  }

  async send(...args: string[]): Promise<unknown> {
    return this.#client.sendCommand(args);
  }

  /**
   * Returns the flags of the engine's connections to this server: "b" waits for jobs, "P" receives messages. The
   * connections of tests and Sentinels have names, and those of other servers the flags M and S.
   */
  async engineConnections(): Promise<string[]> {
    const clients = await this.#client.clientList();
    return clients.flatMap(({ name, flags }) => (name === "" && !/[MS]/.test(flags) ? [flags] : []));
  }

  /** Closes the engine's connections and refuses new ones, until the returned function is called. */
  async refuseEngine(): Promise<() => Promise<unknown>> {
    const [, limit] = (await this.send("CONFIG", "GET", "maxclients")) as string[];
    await this.send("CONFIG", "SET", "maxclients", "1");
    for (const { id, name, flags } of await this.#client.clientList())
      if (name === "" && !/[MS]/.test(flags)) await this.send("CLIENT", "KILL", "ID", String(id));
    return () => this.send("CONFIG", "SET", "maxclients", String(limit));
  }

  async info(name: string): Promise<string | undefined> {
    const info = String(await this.send("INFO"));
    return new RegExp(`^${name}:(.*?)\\r?$`, "m").exec(info)?.[1];
  }

  signal(name: NodeJS.Signals): void {
    process.kill(this.#server.pid, name);
  }

  /** Kills the server and waits until its process has ended. */
  async kill(): Promise<void> {
    this.#client.destroy();
    try {
      this.signal("SIGKILL");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
    }
    await eventually("the killed server has ended", async () => !isRunning(this.#server.pid));
  }

  /** Starts the killed server again, on the same port and without data. */
  async restart(settings: readonly string[] = this.settings): Promise<void> {
    const { folder, configFile, port, place } = this;
    const given = { folder, settings, port, ...place, ...(configFile && { configFile }) };
    this.#server = await startRedisServer(given);
    this.#client = await connectRedis(this.#server.url);
  }
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

export const downAfterMs = 1_500;

/** One master, one replica and three Sentinels. */
export class SentinelSet {
  readonly masterName = "mymaster";

  private constructor(
    readonly servers: readonly TestServer[],
    readonly sentinels: readonly TestServer[],
  ) {}

  static async start(): Promise<SentinelSet> {
    const settings = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
    const master = await TestServer.start(settings);
    const replica = await TestServer.start([...settings, "--replicaof", "127.0.0.1", String(master.port)]);
    await eventually(
      "the replica is in sync",
      async () => (await replica.info("master_link_status")) === "up",
    );
    const config = [
      `sentinel monitor mymaster 127.0.0.1 ${master.port} 2`,
      `sentinel down-after-milliseconds mymaster ${downAfterMs}`,
      "sentinel failover-timeout mymaster 3000",
    ];
    const sentinels = await Promise.all(
      [1, 2, 3].map(() => TestServer.start(["--sentinel"], { config: `${config.join("\n")}\n` })),
    );
    // Without this, a Sentinel looks at the replica only every 10 s. Redis 6 does not know the command.
    for (const sentinel of sentinels)
      await sentinel.send("SENTINEL", "DEBUG", "INFO-PERIOD", "500").catch(() => {});
    const set = new SentinelSet([master, replica], sentinels);
    await set.isComplete();
    return set;
  }

  get url(): string {
    return `redis+sentinel://${this.sentinels.map(({ name }) => name).join(",")}/${this.masterName}/0`;
  }

  /** Returns the server that every Sentinel names as the master and that says so itself. */
  async master(): Promise<TestServer> {
    let master: TestServer | undefined;
    await eventually("the Sentinels agree on a master", async () => {
      const ports = await Promise.all(this.sentinels.map((sentinel) => this.#masterPort(sentinel)));
      master = this.servers.find(({ port }) => ports.every((named) => named === port));
      return (await master?.info("role")) === "master";
    });
    return master as TestServer;
  }

  /** Starts a fail-over to the replica. */
  async failOver(): Promise<void> {
    await this.isComplete();
    await this.sentinels[0]?.send("SENTINEL", "FAILOVER", this.masterName);
  }

  /** Sets after how long a server that does not respond counts as down. */
  async setDownAfter(ms: number): Promise<void> {
    for (const sentinel of this.sentinels)
      await sentinel.send("SENTINEL", "SET", this.masterName, "down-after-milliseconds", String(ms));
  }

  async replica(): Promise<TestServer> {
    const master = await this.master();
    return this.servers.find((server) => server !== master) as TestServer;
  }

  /** Waits until the replica is in sync and each Sentinel knows it and the other Sentinels. */
  async isComplete(): Promise<void> {
    const master = await this.master();
    const replica = await this.replica();
    await eventually("the replica follows the master", async () => {
      const [port, link] = [await replica.info("master_port"), await replica.info("master_link_status")];
      return link === "up" && port === String(master.port);
    });
    await eventually("the Sentinels know one another and the replica", async () => {
      const states = await Promise.all(this.sentinels.map((sentinel) => this.#state(sentinel)));
      return states.every(
        (state) =>
          state.get("num-slaves") === "1" &&
          state.get("num-other-sentinels") === "2" &&
          state.get("flags") === "master",
      );
    });
    await eventually("each Sentinel sees the replica", async () => {
      const replicas = await Promise.all(
        this.sentinels.map((sentinel) => sentinel.send("SENTINEL", "REPLICAS", this.masterName)),
      );
      return replicas.every((rows) =>
        (rows as string[][]).every((row) => {
          const state = mapOf(row);
          return state.get("flags") === "slave" && state.get("master-link-status") === "ok";
        }),
      );
    });
  }

  async stop(): Promise<void> {
    await Promise.all([...this.sentinels, ...this.servers].map((server) => server.kill()));
  }

  async #masterPort(sentinel: TestServer): Promise<number> {
    const reply = await sentinel.send("SENTINEL", "GET-MASTER-ADDR-BY-NAME", this.masterName);
    return Number((reply as string[])[1]);
  }

  async #state(sentinel: TestServer): Promise<Map<string, string>> {
    return mapOf((await sentinel.send("SENTINEL", "MASTER", this.masterName)) as string[]);
  }
}

export interface SlotMove {
  key: string;
  from: TestServer;
  to: TestServer;
  pauseMs: number;
  /** Keys that move before the pause, instead of the first half. */
  firstKeys?: readonly string[];
  beforeEnd?: () => Promise<void>;
}

export const nodeTimeoutMs = 2_000;

/** Three masters, over which the slots are spread, and perhaps a replica of the first one. */
export class RedisCluster {
  private constructor(
    readonly masters: readonly TestServer[],
    readonly replicas: readonly TestServer[],
  ) {}

  static async start({ replicas }: { replicas: 0 | 1 }): Promise<RedisCluster> {
    const nodes = await Promise.all(Array.from({ length: 3 + replicas }, startNode));
    const [first, second, third, replica] = nodes as [TestServer, TestServer, TestServer, TestServer?];
    const bus = String(await busPort(first));
    for (const node of nodes)
      if (node !== first) await node.send("CLUSTER", "MEET", "127.0.0.1", String(first.port), bus);
    await first.send("CLUSTER", "ADDSLOTSRANGE", "0", "5460");
    await second.send("CLUSTER", "ADDSLOTSRANGE", "5461", "10922");
    await third.send("CLUSTER", "ADDSLOTSRANGE", "10923", "16383");
    await eventually("the nodes have met", async () => {
      const infos = await Promise.all(nodes.map((node) => node.send("CLUSTER", "INFO")));
      return infos.every((info) => String(info).includes("cluster_state:ok"));
    });
    const cluster = new RedisCluster([first, second, third], replica ? [replica] : []);
    if (!replica) return cluster;
    await replica.send("CLUSTER", "REPLICATE", await idOf(first));
    await eventually(
      "the replica is in sync",
      async () => (await replica.info("master_link_status")) === "up",
    );
    await eventually("all nodes know the replica", async () => {
      const tables = await Promise.all(nodes.map((node) => node.send("CLUSTER", "NODES")));
      return tables.every((table) => /slave/.test(String(table)));
    });
    return cluster;
  }

  get nodes(): readonly TestServer[] {
    return [...this.masters, ...this.replicas];
  }

  get url(): string {
    return `redis+cluster://${this.masters.map(({ name }) => name).join(",")}`;
  }

  async stop(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.kill()));
  }

  /**
   * Moves the slot of a key and all keys in it to another master, as `redis-cli --cluster reshard` does. Between the
   * first half of the keys and the second half it waits for `pauseMs`; `beforeEnd` is called when all keys have moved.
   */
  async moveSlot({ key, from, to, pauseMs, firstKeys, beforeEnd = async () => {} }: SlotMove): Promise<void> {
    const slot = String(await slotOf(from, key));
    await to.send("CLUSTER", "SETSLOT", slot, "IMPORTING", await idOf(from));
    await from.send("CLUSTER", "SETSLOT", slot, "MIGRATING", await idOf(to));
    const count = Number(await from.send("CLUSTER", "COUNTKEYSINSLOT", slot));
    const pauseAfter = firstKeys ? firstKeys.length : count / 2;
    let moved = 0;
    for (;;) {
      const next = await from.send("CLUSTER", "GETKEYSINSLOT", slot, "10");
      const keys = moved === 0 && firstKeys ? firstKeys : (next as string[]);
      if (keys.length === 0) break;
      await from.send("MIGRATE", "127.0.0.1", String(to.port), "", "0", "5000", "KEYS", ...keys);
      if (moved < pauseAfter && moved + keys.length >= pauseAfter) await sleep(pauseMs);
      moved += keys.length;
    }
    await beforeEnd();
    // The new owner first, as the manual says: otherwise a crash between the two would leave the slot without an owner.
    for (const node of [to, from, ...this.masters.filter((other) => other !== to && other !== from)])
      await node.send("CLUSTER", "SETSLOT", slot, "NODE", await idOf(to));
  }

  /** Returns the node that owns the slot of a key, by what all living nodes say. */
  async ownerOf(key: string): Promise<TestServer> {
    let owner: TestServer | undefined;
    await eventually(`the nodes agree on the owner of ${key}`, async () => {
      const living = this.nodes.filter(({ client }) => client.isReady);
      const ports = await Promise.all(living.map((node) => ownerPort(node, key)));
      owner = this.nodes.find(({ port }) => ports.every((named) => named === port));
      return owner !== undefined;
    });
    return owner as TestServer;
  }
}

async function startNode(): Promise<TestServer> {
  const bus = await freePort();
  return TestServer.start([
    ...[
      "--cluster-enabled",
      "yes",
      "--cluster-port",
      String(bus),
      "--cluster-node-timeout",
      String(nodeTimeoutMs),
    ],
    ...["--cluster-config-file", "nodes.conf", "--repl-diskless-sync-delay", "0"],
  ]);
}

async function busPort(node: TestServer): Promise<number> {
  const [, bus] = (await node.send("CONFIG", "GET", "cluster-port")) as string[];
  return Number(bus);
}

const idOf = async (node: TestServer): Promise<string> => String(await node.send("CLUSTER", "MYID"));

const slotOf = async (node: TestServer, key: string): Promise<number> =>
  Number(await node.send("CLUSTER", "KEYSLOT", key));

type SlotRange = [number, number, [string, number]];

async function ownerPort(node: TestServer, key: string): Promise<number | undefined> {
  const slot = await slotOf(node, key);
  const ranges = (await node.send("CLUSTER", "SLOTS")) as SlotRange[];
  return ranges.find(([first, last]) => first <= slot && slot <= last)?.[2][1];
}
