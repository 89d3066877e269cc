/** Picks the broker by DSN; the one place that knows all of them. Queues with the same DSN share their connections. */
import type { Broker } from "./broker.js";
import type { QueueConfig } from "./config/index.js";
import type { Logger } from "./logger.js";
import { PostgresBroker, PostgresServer } from "./postgres/index.js";

/** One broker per queue, in the order of the configurations. */
export function connectBrokers(queues: readonly QueueConfig[], logger: Logger): Broker[] {
  const servers = new Map<string, PostgresServer>();
  return queues.map((queue) => {
    const plain = queue.pollInterval > 0;
    const id = `${plain} ${queue.dsn}`;
    const server = servers.get(id) ?? new PostgresServer(serverOptions(queues, queue, logger));
    servers.set(id, server);
    const { name: queueName, failedTtl, groupConcurrency } = queue;
    return new PostgresBroker(server, { queueName, failedTtl, groupConcurrency });
  });
}

function serverOptions(queues: readonly QueueConfig[], { dsn, pollInterval }: QueueConfig, logger: Logger) {
  const plain = pollInterval > 0;
  const sharing = queues.filter((queue) => queue.dsn === dsn && queue.pollInterval > 0 === plain);
  return {
    dsn,
    plain,
    logger,
    maxSize: Math.max(...sharing.map((queue) => queue.maxSize)),
    minSize: Math.max(...sharing.map((queue) => queue.minSize)),
  };
}
