// Starts, stops and resets the application's database, whether it is embedded, in Docker or the one of DATABASE_URL.
import path from "node:path";
import { checkExternal, createDatabase, externalName } from "./database-login.js";
import { chooseMode, lastMode, rememberMode } from "./database-mode.js";
import { isDockerAvailable } from "./docker.js";
import { dockerPostgres } from "./docker-postgres.js";
import {
  clusterStatus,
  destroyCluster,
  HOST,
  isFree,
  PortTakenError,
  startCluster,
  stopCluster,
} from "./embedded-postgres.js";
import { ensureEnv, readEnv, writeEnv } from "./env.js";
import { Failure } from "./failure.js";
import { withFreePort } from "./free-port.js";
import { findPackage, installMissing } from "./packages.js";
import { POSTGRES_MAJOR } from "./postgres-binaries.js";
import { waitForServer } from "./postgres-ready.js";
import { forgetOwner } from "./server-owner.js";

/**
 * Starts the database if it does not run yet, and prints which database it is.
 * @param {string} root the application's folder
 * @returns {Promise<{ started: boolean }>} false if it already ran, or if it is the database of DATABASE_URL
 */
export async function startDatabase(root) {
  const env = ensureEnv(root);
  if (/^template[01]$/.test(env.DB_NAME ?? "") && !env.DATABASE_URL) {
    throw new Failure(
      `DB_NAME=${env.DB_NAME} is a database that PostgreSQL reserves for itself. Choose another name in .env.`,
    );
  }
  if (env.DATABASE_URL) {
    await checkExternal(root, env);
    console.log(`Using the database ${externalName(env)}.`);
    return { started: false };
  }
  const choice = chooseMode({ explicit: env.DB_MODE, last: lastMode(root), isDockerAvailable });
  if (choice.mode === "docker") {
    const result = await startDocker(root, env, choice.reason);
    if (result) return result;
  }
  return startEmbedded(root, env);
}

/**
 * Stops this project's own databases, and prints which ones it stopped.
 * @param {string} root
 */
export async function stopDatabase(root) {
  const env = readEnv(root);
  forgetOwner(root, "database");
  const stopped = [];
  if (await stopCluster({ dataDir: dataDir(root) })) stopped.push("embedded");
  const docker = dockerPostgres(root, env);
  if (usesDocker(root, env) && docker.port() && docker.down()) stopped.push("docker");
  if (stopped.length > 0) console.log(`PostgreSQL (${stopped.join(", ")}) was stopped. Its data is kept.`);
  else console.log("No database of this project is running.");
  if (env.DATABASE_URL)
    console.log(`The database ${externalName(env)} does not belong to this project. It was not stopped.`);
}

/**
 * Deletes all data of this project's own database and starts an empty one.
 * @param {string} root
 */
export async function resetDatabase(root) {
  const env = ensureEnv(root);
  if (env.DATABASE_URL) {
    throw new Failure(
      `The database ${externalName(env)} does not belong to this project, so it is never reset.\n` +
        "To use this project's own database, remove DATABASE_URL from .env and the environment, and run make db-start.",
    );
  }
  const { mode } = chooseMode({ explicit: env.DB_MODE, last: lastMode(root), isDockerAvailable });
  if (mode === "docker") {
    requireDocker();
    if (!dockerPostgres(root, env).destroy())
      throw new Failure("docker compose down failed. The reason is above.");
  } else {
    await destroyCluster({ dataDir: dataDir(root) });
  }
  console.log(`All data of this project's database (${mode}) was deleted.`);
  await startDatabase(root);
}

/** @param {string} root @param {import("./env.js").Env} env */
async function startEmbedded(root, env) {
  if (!findPackage("embedded-postgres", root)) await installMissing(root, ["embedded-postgres"]);
  const running = clusterStatus({ dataDir: dataDir(root) }).running;
  const cluster = await withFreePort(portOf(env), (port) =>
    startCluster({ dataDir: dataDir(root), port, password: env.DB_PASSWORD ?? "" }),
  );
  savePort(root, env, cluster.port);
  try {
    await createDatabase(root, cluster.url("postgres"), env.DB_NAME ?? "");
  } catch (error) {
    if (!running) await cluster.stop();
    throw error;
  }
  rememberMode(root, "embedded");
  console.log(
    `PostgreSQL ${POSTGRES_MAJOR} (embedded) is ready on ${HOST}:${cluster.port}, database ${env.DB_NAME}. ` +
      `Its data is in .data/pg${POSTGRES_MAJOR}.`,
  );
  return { started: !running };
}

/**
 * @param {string} root @param {import("./env.js").Env} env @param {import("./database-mode.js").ModeReason} reason
 * @returns {Promise<{ started: boolean } | undefined>} undefined: Docker failed, but it was selected only because it
 *   was available, so the caller may use the embedded server
 */
async function startDocker(root, env, reason) {
  if (reason !== "available") requireDocker();
  const before = dockerPostgres(root, env).port();
  const port =
    before ??
    (await withFreePort(portOf(env), async (candidate) => {
      if (!(await isFree(candidate))) throw new PortTakenError(candidate);
      return candidate;
    }));
  savePort(root, env, port);
  const docker = dockerPostgres(root, { ...env, DB_PORT: String(port) });
  if (!docker.up()) {
    if (reason !== "available")
      throw new Failure("docker compose could not start PostgreSQL. The reason is above.");
    docker.down();
    console.log("Docker could not start PostgreSQL (the reason is above). The embedded server is used.");
    return undefined;
  }
  if (!(await waitForServer({ host: HOST, port, timeoutMs: 30_000 }))) {
    throw new Failure(
      `PostgreSQL in Docker does not answer on ${HOST}:${port}. See: docker compose logs postgres`,
    );
  }
  docker.createDatabase(env.DB_NAME ?? "");
  rememberMode(root, "docker");
  console.log(`PostgreSQL ${POSTGRES_MAJOR} (Docker) is ready on ${HOST}:${port}, database ${env.DB_NAME}.`);
  return { started: before === undefined };
}

function requireDocker() {
  if (isDockerAvailable()) return;
  throw new Failure(
    "This project's database is in Docker, but Docker (daemon and compose plugin) does not answer.\n" +
      "Start Docker and try again, or set DB_MODE=embedded in .env for a separate, empty database without Docker.",
  );
}

/** Returns DB_PORT and what is known about it. @param {import("./env.js").Env} env */
function portOf(env) {
  const first = Number(env.DB_PORT);
  if (!Number.isInteger(first) || first < 1 || first > 65535) {
    throw new Failure(`DB_PORT=${env.DB_PORT} is not a port. Write a number from 1 to 65535 in .env.`);
  }
  return { first, setting: "DB_PORT", isFixed: Boolean(process.env.DB_PORT) };
}

/** @param {string} root @param {import("./env.js").Env} env @param {number} port */
function savePort(root, env, port) {
  if (String(port) === env.DB_PORT) return;
  console.log(`The database uses port ${port}, not ${env.DB_PORT}. DB_PORT in .env was changed.`);
  writeEnv(root, "DB_PORT", String(port));
}

/** @param {string} root */
const dataDir = (root) => path.join(root, `.data/pg${POSTGRES_MAJOR}`);

/** @param {string} root @param {import("./env.js").Env} env */
function usesDocker(root, env) {
  return (env.DB_MODE === "docker" || lastMode(root) === "docker") && isDockerAvailable();
}
