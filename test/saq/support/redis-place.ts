/** The Redis of a test file: a database of the run's server, or a cluster of its own. */
import { leaseRedisDatabase, type RedisClient, type RedisDatabase } from "../../support/redis.js";
import { type RedisStateOptions, redisState } from "./redis-state.js";
import { RedisCluster } from "./redis-topology.js";
import type { StoredState } from "./stored-state.js";
import { onCluster } from "./test-broker.js";

export interface RedisPlace {
  url: string;
  /** The one connection to the database. @throws on a cluster, which has several servers */
  client(): RedisClient;
  /** `queues`: the names of the queues that the test has opened so far. */
  stored(queues: RedisStateOptions["queues"]): StoredState;
  release(): Promise<void>;
}

export async function openRedisPlace(): Promise<RedisPlace> {
  return onCluster ? clusterPlace() : databasePlace();
}

const databasePlace = async (): Promise<RedisPlace> => placeIn(await leaseRedisDatabase());

/** The place in a database of a server. */
export function placeIn({
  url,
  client,
  release,
}: Pick<RedisDatabase, "url" | "client" | "release">): RedisPlace {
  return {
    url,
    client: () => client,
    stored: (queues) => redisState({ clientOf: async () => client, clients: () => [client], queues }),
    release,
  };
}

async function clusterPlace(): Promise<RedisPlace> {
  const cluster = await RedisCluster.start({ replicas: 0 });
  const clients = cluster.nodes.map(({ client }) => client);
  const clientOfQueue = new Map<string, RedisClient>();
  const clientOf = async (queue: string) => {
    const client = clientOfQueue.get(queue) ?? (await cluster.ownerOf(`saq:{${queue}}:queued`)).client;
    clientOfQueue.set(queue, client);
    return client;
  };
  return {
    url: cluster.url,
    client: () => {
      throw new Error("this test reads a single Redis, but runs on a cluster");
    },
    stored: (queues) => redisState({ clientOf, clients: () => clients, queues }),
    release: () => cluster.stop(),
  };
}
