/** The `Queue` of the public interface: it has `fromUrl`, which can connect. queue/ itself knows no broker. */
import { defineQueue, type QueueOptions } from "./config/index.js";
import { connectBrokers } from "./connect.js";
import { InvalidUrlError, SaqError } from "./errors.js";
import { type Logger, silentLogger } from "./logger.js";
import { Queue as AnyQueue } from "./queue/queue.js";
import { parseQueueAddress } from "./queue-address.js";
import type { TaskMap } from "./tasks/task.js";

/** Options of `Queue.fromUrl`: some of those of `defineQueue`, and a logger. */
export type FromUrlOptions = Pick<
  Partial<QueueOptions>,
  "defaults" | "enableOtel" | "failedTtl" | "lockKeyspace" | "maxSize" | "minSize" | "pollInterval" | "tables"
> & {
  /** Name of the queue, at most 59 bytes. @defaultValue "default" */
  name?: string;
  /** Logger of the queue's connections, and of changes by filter. @defaultValue none */
  logger?: Logger;
};

/**
 * Returns a queue for direct access to jobs of tasks that this process does not have. It takes any task name and
 * payload, results are `unknown`, and no worker can run it. Nothing is connected before its first use. Close it when it
 * is no longer needed.
 *
 * @param url `postgresql://user:password@host:port/database`, or `redis://:password@host:port/database`, or one of a
 *   Redis with Sentinels or of a Redis Cluster
 * @throws InvalidUrlError (invalid_url) if `url` is not an address of PostgreSQL or Redis; the message contains no
 *   password
 * @throws ConfigError (config) if an option is out of its range, or if a certificate file that the address names cannot
 *   be read
 * @example
 * const queue = Queue.fromUrl("postgresql://user:password@127.0.0.1:5432/app", { name: "mail" });
 * await queue.enqueue("sendMail", { to: "ann@example.com" });
 * await queue.close();
 */
function fromUrl(url: string, options: FromUrlOptions = {}): AnyQueue {
  const { name = "default", logger = silentLogger, ...queueOptions } = options;
  checkUrl(url);
  const config = defineQueue({ ...queueOptions, name, dsn: url, tasks: {} });
  const [broker] = connectBrokers([config], logger);
  if (!broker) throw new SaqError("config", `Queue "${name}" has no broker`);
  return new AnyQueue(config, broker, { anyTask: true, logger });
}

/** Checks the address. The error contains no password: at most the scheme is shown of what cannot be parsed. */
function checkUrl(url: unknown): void {
  try {
    parseQueueAddress(String(url));
  } catch (error) {
    throw new InvalidUrlError(`Invalid url: it ${(error as Error).message}`);
  }
}

/** A queue: enqueues jobs, waits for them, reads and changes them. `Tasks` are its tasks; without it, any task. */
export type Queue<Tasks extends TaskMap = TaskMap> = AnyQueue<Tasks>;
/** The class of queues. `saq.taskQueues.get` returns a configured queue, `Queue.fromUrl` a queue of another program. */
export const Queue = Object.assign(AnyQueue, { fromUrl });
