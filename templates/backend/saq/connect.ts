/**
 * Creates the broker for a DSN. This is the only module that knows all brokers. Queues with the same DSN share their
 * connections, but not on a Redis Cluster, and on PostgreSQL only if their mode is the same too (with or without
 * `pollInterval`). If their tables, lock keyspace and `maxBytes` are also the same, they share one `TableSession`.
 */

import { AddressError } from "./address-parts.js";
import type { Broker } from "./broker.js";
import type { QueueConfig } from "./config/index.js";
import { ConfigError } from "./errors.js";
import type { Logger } from "./logger.js";
import { ConnectionPool, type PoolOptions, PostgresBroker, TableSession } from "./postgres/index.js";
import { RedisBroker, RedisConnection } from "./redis/index.js";
import { isClusterAddress, isRedisAddress } from "./redis-address.js";

/**
 * Returns one broker per queue, in the order of the configurations. Opens no connection, but reads the certificate
 * files that the addresses name.
 *
 * @throws ConfigError that names the queue, if such a file cannot be read
 */
export function connectBrokers(queues: readonly QueueConfig[], logger: Logger): Broker[] {
  const pools = new Map<string, ConnectionPool>();
  const sessions = new Map<string, TableSession>();
  const redisConnections = new Map<string, RedisConnection>();
  return queues.map((queue) => {
    const { name: queueName, failedTtl, groupConcurrency, tables, lockKeyspace, maxBytes } = queue;
    if (isRedisAddress(queue.dsn)) {
      // On a cluster, the keys of each queue may be on another node.
      const sharing = isClusterAddress(queue.dsn) ? `${queue.dsn} ${queueName}` : queue.dsn;
      const connection = getOrCreate(redisConnections, sharing, () =>
        namingQueue(queueName, () => new RedisConnection(queue.dsn, logger, queueName)),
      );
      return new RedisBroker(connection, { queueName, failedTtl, maxBytes });
    }
    const pool = getOrCreate(pools, `${usesPooler(queue)} ${queue.dsn}`, () => {
      return namingQueue(queueName, () => new ConnectionPool(connectionOptions(queues, queue, logger)));
    });
    const id = JSON.stringify([usesPooler(queue), queue.dsn, tables, lockKeyspace, maxBytes]);
    const session = getOrCreate(sessions, id, () => {
      return new TableSession(pool, { tables, lockKeyspace, maxBytes });
    });
    return new PostgresBroker(session, { queueName, failedTtl, groupConcurrency });
  });
}

const usesPooler = ({ pollInterval }: QueueConfig): boolean => pollInterval > 0;

function getOrCreate<Value>(cache: Map<string, Value>, id: string, create: () => Value): Value {
  const value = cache.get(id) ?? create();
  cache.set(id, value);
  return value;
}

/** @throws ConfigError that names the queue in place of an AddressError */
function namingQueue<Value>(queueName: string, create: () => Value): Value {
  try {
    return create();
  } catch (error) {
    if (!(error instanceof AddressError)) throw error;
    // Without a cause: like other errors about the dsn, which may contain a password.
    throw new ConfigError(`defineQueue(${JSON.stringify(queueName)}): dsn ${error.message}`);
  }
}

function connectionOptions(queues: readonly QueueConfig[], queue: QueueConfig, logger: Logger): PoolOptions {
  const behindPooler = usesPooler(queue);
  const sharing = queues.filter((other) => other.dsn === queue.dsn && usesPooler(other) === behindPooler);
  return {
    dsn: queue.dsn,
    behindPooler,
    logger,
    maxSize: Math.max(...sharing.map(({ maxSize }) => maxSize)),
    minSize: Math.max(...sharing.map(({ minSize }) => minSize)),
  };
}
