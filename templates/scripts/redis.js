// Starts and stops the Redis server of QUEUE_DSN, if it belongs to this project: an installed redis-server, or Docker.
import { AddressError } from "../backend/saq/address-parts.js";
import { nameOfRedisAddress } from "../backend/saq/redis-address.js";
import { lastMode } from "./database-mode.js";
import { composeService, isDockerAvailable } from "./docker.js";
import { HOST, isFree, PortTakenError } from "./embedded-postgres.js";
import { ensureEnv, queueAddress, readEnv, sourceOf, writeEnv } from "./env.js";
import { Failure } from "./failure.js";
import { withFreePort } from "./free-port.js";
import { readMode, writeMode } from "./last-mode.js";
import { portHolder } from "./port-holder.js";
import { findRedisServer, startRedisProcess, stopRedisProcess } from "./redis-process.js";
import { isRedisReady, waitForRedis } from "./redis-ready.js";
import { forgetOwner } from "./server-owner.js";

/** @typedef {import("../backend/saq/redis-address.js").RedisAddress} RedisAddress */

/** The modes in which this project runs Redis itself. */
const MODES = /** @type {const} */ (["server", "docker"]);
const EXTERNAL = "external";
const LOCAL_HOSTS = ["localhost", HOST];
const READY_TIMEOUT_MS = 5000;
const DOCKER_READY_TIMEOUT_MS = 30_000;

const NO_SERVER =
  "The queue is on Redis (QUEUE_DSN in .env), but neither redis-server nor Docker was found.\n" +
  "Install Redis (Debian, Ubuntu: apt install redis-server; macOS: brew install redis), or start Docker.\n" +
  "Or leave QUEUE_DSN empty in .env: the queue then uses PostgreSQL.";

/**
 * Returns the address of the queue's Redis; undefined if the queue uses PostgreSQL.
 * @param {import("./env.js").Env} env
 */
export function redisOf(env) {
  const queue = queueAddress(env);
  return queue.storage === "redis" ? queue.address : undefined;
}

/**
 * Fails if the queue is on Redis, and Redis does not answer within timeoutMs.
 * @param {import("./env.js").Env} env @param {number} timeoutMs
 */
export async function requireRedis(env, timeoutMs) {
  const address = redisOf(env);
  if (!address || (await isAnswering(address, timeoutMs))) return;
  if (!isOwn(env, address)) throw noExternal(address);
  throw new Failure(`Redis does not answer at ${nameOfRedisAddress(address)}. Start it: make redis-start`);
}

/**
 * Returns true if the queue's Redis answers.
 * @param {RedisAddress} address @param {number} [timeoutMs]
 */
async function isAnswering(address, timeoutMs = READY_TIMEOUT_MS) {
  try {
    return await isRedisReady(address, timeoutMs);
  } catch (error) {
    if (!(error instanceof AddressError)) throw error;
    throw new Failure(`QUEUE_DSN (from ${sourceOf("QUEUE_DSN")}) ${error.message}`);
  }
}

/**
 * Returns true if this project starts and stops the Redis of an address itself: QUEUE_DSN is in .env, where its port
 * can be changed, and names a server of this machine without login and TLS. REDIS_MODE=external means that somebody
 * else runs it.
 * @param {import("./env.js").Env} env @param {RedisAddress} address
 */
export function isOwn(env, { kind, nodes: [node], password, tls, username }) {
  return (
    env.REDIS_MODE !== EXTERNAL &&
    !process.env.QUEUE_DSN &&
    kind === "single" &&
    LOCAL_HOSTS.includes(node?.host ?? "") &&
    [password, username, tls].every((part) => part === undefined)
  );
}

/**
 * Starts the queue's Redis if it does not run yet, and prints which server it is.
 * @param {string} root the application's folder
 * @returns {Promise<{ started: boolean }>} false if it already ran, or does not belong to this project
 */
export async function startRedis(root) {
  const env = ensureEnv(root);
  const address = redisOf(env);
  if (!address) {
    throw new Failure(
      "The queue uses PostgreSQL, so there is no Redis to start. For a queue on Redis, write\n" +
        "QUEUE_DSN=redis://localhost:6379/0 in .env.",
    );
  }
  if (!isOwn(env, address)) {
    await checkExternal(address);
    return { started: false };
  }
  const mode = chooseRedisMode(root, env);
  const result =
    mode === "docker" ? await startDocker(root, env, address) : await startServer(root, env, address);
  writeMode(root, "redis", mode);
  return result;
}

/**
 * Stops this project's own Redis, and prints what it stopped.
 * @param {string} root
 */
export async function stopRedis(root) {
  const env = readEnv(root);
  forgetOwner(root, "redis");
  const stopped = [];
  if (await stopRedisProcess(root)) stopped.push("redis-server");
  if (readMode(root, "redis", MODES) === "docker" && isDockerAvailable()) {
    const docker = dockerRedis(root, env, 0);
    if (docker.port() && docker.down()) stopped.push("docker");
  }
  if (stopped.length > 0) console.log(`Redis (${stopped.join(", ")}) was stopped. Its data is kept.`);
  else console.log("No Redis of this project is running.");
  const address = redisOf(env);
  if (address && !isOwn(env, address))
    console.log(
      `${externalKinds[address.kind].name} ${externalName(address)} does not belong to this project. ` +
        "It was not stopped.",
    );
}

/** @param {RedisAddress} address */
const externalName = (address) => `${nameOfRedisAddress(address)} (QUEUE_DSN from ${sourceOf("QUEUE_DSN")})`;

/** The names in messages of a Redis that the project does not run, and of the part of it that must answer. */
const externalKinds = {
  single: { name: "The Redis server", part: "Redis server" },
  sentinel: { name: "The Redis behind the Sentinels", part: "Redis Sentinel" },
  cluster: { name: "The Redis cluster", part: "node of a Redis cluster" },
};

/** @param {RedisAddress} address */
async function checkExternal(address) {
  if (!(await isAnswering(address))) throw noExternal(address);
  const { name } = externalKinds[address.kind];
  console.log(`Using ${name.replace("The", "the")} ${externalName(address)}.`);
}

/** @param {RedisAddress} address */
const noExternal = (address) =>
  new Failure(
    `No ${externalKinds[address.kind].part} answers at ${externalName(address)}.\n` +
      `Start it, correct QUEUE_DSN, or remove it from ${sourceOf("QUEUE_DSN")}: the queue then uses PostgreSQL.`,
  );

/**
 * Chooses the explicit mode, else the mode of the last start, else the mode of the database if that is Docker, else an
 * installed server, else Docker.
 * @param {string} root @param {import("./env.js").Env} env
 */
function chooseRedisMode(root, env) {
  const explicit = MODES.find((mode) => mode === env.REDIS_MODE);
  if (env.REDIS_MODE && !explicit) {
    throw new Failure(
      `REDIS_MODE=${env.REDIS_MODE} is not a known mode. ` +
        "Leave it empty (automatic), or write server, docker or external.",
    );
  }
  const last = explicit ?? readMode(root, "redis", MODES);
  if (last) return last;
  const database = env.DATABASE_URL ? undefined : (env.DB_MODE ?? lastMode(root));
  if (database === "docker" && isDockerAvailable()) return "docker";
  if (findRedisServer()) return "server";
  if (isDockerAvailable()) return "docker";
  throw new Failure(NO_SERVER);
}

/** @param {string} root @param {import("./env.js").Env} env @param {RedisAddress} address */
async function startServer(root, env, address) {
  const program = findRedisServer();
  if (!program) throw new Failure(NO_SERVER);
  const { port, started } = await startRedisProcess(root, program, (launch) =>
    withFreePort(portsFrom(address), launch),
  );
  savePort(root, env, address, port, !started);
  console.log(`Redis (redis-server) is ready on ${HOST}:${port}. Its data is in .data/redis.`);
  return { started };
}

/** @param {string} root @param {import("./env.js").Env} env @param {RedisAddress} address */
async function startDocker(root, env, address) {
  if (!isDockerAvailable()) {
    throw new Failure(
      "This project's Redis is in Docker, but Docker (daemon and compose plugin) does not answer.\n" +
        "Start Docker and try again, or set REDIS_MODE=server in .env for a separate, empty Redis without Docker.",
    );
  }
  const before = dockerRedis(root, env, 0).port();
  const port =
    before ??
    (await withFreePort(portsFrom(address), async (candidate) => {
      if (!(await isFree(candidate)) || !(await isFree(candidate, "::1")))
        throw new PortTakenError(candidate);
      return candidate;
    }));
  if (!dockerRedis(root, env, port).up())
    throw new Failure("docker compose could not start Redis. The reason is above.");
  savePort(root, env, address, port, before !== undefined);
  if (!(await waitForRedis({ host: HOST, port }, { timeoutMs: DOCKER_READY_TIMEOUT_MS }))) {
    throw new Failure(
      `Redis in Docker does not answer on ${HOST}:${port}. See: docker compose -f docker-compose.redis.yml logs`,
    );
  }
  console.log(`Redis (Docker) is ready on ${HOST}:${port}.`);
  return { started: before === undefined };
}

/** @param {string} root @param {import("./env.js").Env} env @param {number} port */
const dockerRedis = (root, env, port) =>
  composeService(
    root,
    { ...env, REDIS_PORT: String(port) },
    { file: "docker-compose.redis.yml", service: "redis", port: 6379 },
  );

/** @param {RedisAddress} address */
const portOf = ({ nodes: [node] }) => node?.port ?? 6379;

/** @param {RedisAddress} address */
const portsFrom = (address) => ({ first: portOf(address), setting: "port in QUEUE_DSN" });

/**
 * Writes the port of the server to QUEUE_DSN, if QUEUE_DSN has another one.
 * @param {string} root @param {import("./env.js").Env} env @param {RedisAddress} address @param {number} port
 * @param {boolean} wasRunning true if the server ran already; otherwise the port in QUEUE_DSN was taken
 */
function savePort(root, env, address, port, wasRunning) {
  const before = portOf(address);
  if (before === port) return;
  const query = /\?.*$/.exec(env.QUEUE_DSN ?? "")?.[0] ?? "";
  writeEnv(root, "QUEUE_DSN", `redis://localhost:${port}/${address.database}${query}`);
  console.log(`Redis uses port ${port}, not ${before}. QUEUE_DSN in .env was changed.`);
  if (wasRunning) return;
  const holder = portHolder(before);
  const by = holder ? `by ${holder.command} (process ${holder.pid})` : "by another program";
  console.log(
    `Port ${before} is taken ${by}. If that is a Redis server that the queue is to use, write\n` +
      `QUEUE_DSN=redis://localhost:${before}/${address.database} and REDIS_MODE=external in .env.`,
  );
}
