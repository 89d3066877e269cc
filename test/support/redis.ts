/** Finds or starts the Redis server of a test run, and gives each test file a database of its own in it. */
import { spawn } from "node:child_process";
import { openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "@redis/client";
import { findRedisServer, redisMissing, redisServerMissing } from "./find-redis.js";
import { freePort } from "./free-port.js";
import { oncePerRun } from "./once.js";

export { findRedisServer, redisMissing, redisServerMissing };

/** A test file or a process of the tests is silent for less than this time, ms. After it, its database is free again. */
const leaseMs = 3_600_000;

/** More than the tests of one run take: on the run's own server, no database is used twice. */
const databases = 1_024;

const loopback = "127.0.0.1";

export interface RedisServer {
  /** Without a database number. */
  url: string;
  port: number;
  /** Process id of the server. */
  pid: number;
}

export interface RedisServerOptions {
  /** For its data and its log. */
  folder: string;
  /** More settings, each as the server's command line takes it: `["--appendonly", "yes"]`. */
  settings?: readonly string[];
  port?: number;
  /** Path of a configuration file that the server may change. A Sentinel needs one. */
  configFile?: string;
  /** The password that the configuration file sets. */
  password?: string;
  /** The address at which clients reach it. By default the loopback address. */
  host?: string;
  /** A program that starts the server, with the program's own arguments. */
  within?: readonly string[];
}

/**
 * Starts a server that stores nothing on disk, unless `settings` say otherwise. It ends on SIGTERM, and
 * when the test run ends in any way.
 */
export async function startRedisServer({
  folder,
  settings = [],
  port,
  configFile,
  password,
  host = loopback,
  within = [],
}: RedisServerOptions): Promise<RedisServer> {
  const program = findRedisServer();
  if (!program) throw new Error(redisServerMissing ?? "");
  const listening = port ?? (await freePort());
  const log = join(folder, `redis-${listening}.log`);
  const pidFile = join(folder, `redis-${listening}.pid`);
  const given = ["--port", String(listening), "--dir", folder, "--pidfile", pidFile, "--bind", loopback];
  // Without a password, Redis would refuse clients of other addresses.
  if (host !== loopback) given.push(host, "--protected-mode", "no");
  const fast = ["--save", "", "--appendonly", "no", "--databases", String(databases)];
  // This shell ends with its server, and ends the server when the process of the test run has ended: a run that is
  // killed starts no teardown.
  const watch = `run=$1; shift; "$@" & server=$!; trap 'kill $server' TERM INT
    while kill -0 $server 2> /dev/null; do kill -0 $run 2> /dev/null || kill $server; sleep 1 & wait $!; done`;
  const run = process.env.TEST_RUN_PID ?? String(process.pid);
  const output = openSync(log, "a");
  const args = [...(configFile === undefined ? [] : [configFile]), ...given, ...fast, ...settings];
  spawn("/bin/sh", ["-c", watch, "redis", run, ...within, program, ...args], {
    cwd: folder,
    detached: true,
    stdio: ["ignore", output, output],
  }).unref();
  const url = `redis://${password === undefined ? "" : `:${password}@`}${host}:${listening}`;
  const deadline = Date.now() + 60_000;
  for (;;) {
    const pid = await serverPid(url);
    if (pid !== null) return { url, port: listening, pid };
    if (Date.now() > deadline)
      throw new Error(`The Redis server did not start within 60 s:\n${readFileSync(log, "utf8")}`);
    await sleep(20);
  }
}

/** Returns the process id of a server that answers; null if there is none yet. */
async function serverPid(url: string): Promise<number | null> {
  const client = createClient({ url, socket: { reconnectStrategy: false, connectTimeout: 2_000 } });
  client.on("error", () => {});
  try {
    await client.connect();
    return Number(/^process_id:(\d+)/m.exec(await client.info("server"))?.[1] ?? Number.NaN);
  } catch {
    return null;
  } finally {
    client.destroy();
  }
}

/** Returns the address of the run's server, without a database number. The first caller of a run starts the server. */
export async function testRedisUrl(): Promise<string> {
  if (process.env.TEST_REDIS_URL) return process.env.TEST_REDIS_URL;
  const { url } = await oncePerRun("redis", 60_000, (folder) => startRedisServer({ folder }));
  return url;
}

/** The type of a connected client of the tests. */
export type RedisClient = ReturnType<typeof newClient>;

function newClient(url: string, database?: number) {
  return createClient({ url, RESP: 2, name: "test", ...(database === undefined ? {} : { database }) });
}

/** Connects to a server, for instance to read what the engine has stored. The caller closes the client. */
export async function connectRedis(url: string, database?: number): Promise<RedisClient> {
  const client = newClient(url, database);
  // Some tests kill the server; the client connects again by itself.
  client.on("error", () => {});
  await client.connect();
  return client;
}

export interface RedisDatabase {
  /** With the number of the database. */
  url: string;
  number: number;
  /** A connection to this database. */
  client: RedisClient;
  /** Removes everything from the database, and closes the connection. */
  release(): Promise<void>;
}

/** Connects to database 0 of a server that belongs to one test. */
export async function openRedisDatabase(url: string): Promise<RedisDatabase> {
  const client = await connectRedis(url);
  return { url: `${url}/0`, number: 0, client, release: async () => client.destroy() };
}

/**
 * Takes a database of the run's server that is empty and that no other test file uses. A number is enough to keep the
 * keys apart, but channels are common to all databases: queues need names of their own as well.
 */
export async function leaseRedisDatabase(): Promise<RedisDatabase> {
  const server = await testRedisUrl();
  const admin = await connectRedis(server, 0);
  const lease = (number: number) => `saq-tests:lease:${number}`;
  try {
    const count = await numberOfDatabases(admin);
    const first = process.env.TEST_REDIS_URL ? 1 : await admin.incr("saq-tests:next");
    for (let number = first; number < count; number++) {
      const mine = { condition: "NX", expiration: { type: "PX", value: leaseMs } } as const;
      if ((await admin.set(lease(number), process.pid, mine)) === null) continue;
      const client = await connectRedis(server, number);
      if ((await client.dbSize()) > 0) {
        // Somebody else's data: on a server that TEST_REDIS_URL names, they are not ours to remove.
        client.destroy();
        await admin.del(lease(number));
        continue;
      }
      const url = new URL(server);
      url.pathname = `/${number}`;
      return {
        url: url.href,
        number,
        client,
        release: async () => {
          await client.flushDb();
          // A worker process of a failed test may still connect to it. So it is taken again only where there are few.
          if (process.env.TEST_REDIS_URL) {
            await client.select(0);
            await client.del(lease(number));
          }
          await client.close();
        },
      };
    }
    throw new Error(
      `No database of ${server} is free: each of 1 to ${count - 1} has keys, or another test uses it. ` +
        "Empty one, or start the server with more databases.",
    );
  } finally {
    await admin.close();
  }
}

async function numberOfDatabases(admin: RedisClient): Promise<number> {
  const { databases: count } = await admin.configGet("databases");
  return Number(count ?? 16);
}
