// Starts, stops and resets the application's database, whether it is embedded, in Docker or the one of DATABASE_URL.
import path from "node:path";
import { checkForeign, createDatabase, foreignName } from "./database-login.js";
import { chooseMode, lastMode, rememberMode } from "./database-mode.js";
import { forgetOwner } from "./database-owner.js";
import { dockerAnswers, dockerPostgres } from "./docker-postgres.js";
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
import { findPackage, installMissing } from "./packages.js";
import { POSTGRES_MAJOR } from "./postgres-binaries.js";
import { waitForServer } from "./postgres-ready.js";

const PORTS_TRIED = 100;

/**
 * Starts the database if it does not run yet, and prints which database it is.
 * @param {string} root the application's folder
 * @returns {Promise<{ started: boolean }>} false if it already ran, or if it is the database of DATABASE_URL
 */
export async function startDatabase(root) {
  const env = ensureEnv(root);
  if (/^template[01]$/.test(env.DB_NAME ?? "") && !env.DATABASE_URL) {
    throw new Failure(
      `DB_NAME=${env.DB_NAME} is a template that PostgreSQL copies into every new database. Choose another name in .env.`,
    );
  }
  if (env.DATABASE_URL) {
    await checkForeign(root, env);
    console.log(`Using the database ${foreignName(env)}.`);
    return { started: false };
  }
  const choice = chooseMode({ explicit: env.DB_MODE, last: lastMode(root), dockerAnswers });
  if (choice.mode === "docker") {
    const result = await startDocker(root, env, choice.why);
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
  forgetOwner(root);
  const stopped = [];
  if (await stopCluster({ dataDir: dataDir(root) })) stopped.push("embedded");
  const docker = dockerPostgres(root, env);
  if (usesDocker(root, env) && docker.port() && docker.down()) stopped.push("docker");
  if (stopped.length > 0) console.log(`PostgreSQL (${stopped.join(", ")}) stopped; the data stay.`);
  else console.log("No database of this project is running.");
  if (env.DATABASE_URL)
    console.log(`The database ${foreignName(env)} is not of this project and was left alone.`);
}

/**
 * Deletes all data of this project's own database and starts an empty one.
 * @param {string} root
 */
export async function resetDatabase(root) {
  const env = ensureEnv(root);
  if (env.DATABASE_URL) {
    throw new Failure(
      `The database ${foreignName(env)} is not of this project: it is never reset.\n` +
        "To use one of this project's own, take DATABASE_URL out of .env and the environment, then run make db-start.",
    );
  }
  const { mode } = chooseMode({ explicit: env.DB_MODE, last: lastMode(root), dockerAnswers });
  if (mode === "docker") {
    requireDocker();
    if (!dockerPostgres(root, env).destroy())
      throw new Failure("docker compose down failed; its reason is above.");
  } else {
    await destroyCluster({ dataDir: dataDir(root) });
  }
  console.log(`All data of this project's database (${mode}) were removed.`);
  await startDatabase(root);
}

/** @param {string} root @param {import("./env.js").Env} env */
async function startEmbedded(root, env) {
  if (!findPackage("embedded-postgres", root)) await installMissing(root, ["embedded-postgres"]);
  const running = clusterStatus({ dataDir: dataDir(root) }).running;
  const cluster = await onFreePort(env, (port) =>
    startCluster({ dataDir: dataDir(root), port, password: env.DB_PASSWORD ?? "" }),
  );
  keepPort(root, env, cluster.port);
  try {
    await createDatabase(root, cluster.url("postgres"), env.DB_NAME ?? "");
  } catch (error) {
    if (!running) await cluster.stop();
    throw error;
  }
  rememberMode(root, "embedded");
  console.log(
    `PostgreSQL ${POSTGRES_MAJOR} (embedded) answers on ${HOST}:${cluster.port}, database ${env.DB_NAME}; ` +
      `its data are in .data/pg${POSTGRES_MAJOR}.`,
  );
  return { started: !running };
}

/**
 * @param {string} root @param {import("./env.js").Env} env @param {"explicit" | "last" | "found"} why
 * @returns {Promise<{ started: boolean } | undefined>} undefined: Docker failed, but it was selected only because it
 *   was available, so the caller may use the embedded server
 */
async function startDocker(root, env, why) {
  if (why !== "found") requireDocker();
  const before = dockerPostgres(root, env).port();
  const port =
    before ??
    (await onFreePort(env, async (candidate) => {
      if (!(await isFree(candidate))) throw new PortTakenError(candidate);
      return candidate;
    }));
  keepPort(root, env, port);
  const docker = dockerPostgres(root, { ...env, DB_PORT: String(port) });
  if (!docker.up()) {
    if (why !== "found") throw new Failure("docker compose could not start PostgreSQL; its reason is above.");
    docker.down();
    console.log("Docker could not start PostgreSQL (its reason is above); the embedded server is used.");
    return undefined;
  }
  if (!(await waitForServer({ host: HOST, port, timeoutMs: 30_000 }))) {
    throw new Failure(
      `PostgreSQL in Docker does not answer on ${HOST}:${port}. See: docker compose logs postgres`,
    );
  }
  docker.createDatabase(env.DB_NAME ?? "");
  rememberMode(root, "docker");
  console.log(`PostgreSQL ${POSTGRES_MAJOR} (Docker) answers on ${HOST}:${port}, database ${env.DB_NAME}.`);
  return { started: before === undefined };
}

function requireDocker() {
  if (dockerAnswers()) return;
  throw new Failure(
    "This project's database is in Docker, and Docker (daemon and compose plugin) does not answer.\n" +
      "Start Docker and try again, or set DB_MODE=embedded in .env for a separate, empty database without Docker.",
  );
}

/**
 * Calls `start` with DB_PORT, and then with the ports above it until one is free.
 * @template T
 * @param {import("./env.js").Env} env
 * @param {(port: number) => Promise<T>} start throws PortTakenError if another program uses the port
 * @returns {Promise<T>}
 */
async function onFreePort(env, start) {
  const first = Number(env.DB_PORT);
  if (!Number.isInteger(first) || first < 1 || first > 65535) {
    throw new Failure(`DB_PORT=${env.DB_PORT} is not a port. Write a number from 1 to 65535 in .env.`);
  }
  for (let port = first; port < Math.min(first + PORTS_TRIED, 65536); port++) {
    try {
      return await start(port);
    } catch (error) {
      if (!(error instanceof PortTakenError)) throw error;
      if (process.env.DB_PORT) {
        throw new Failure(
          `Port ${port} is taken, and the environment fixes DB_PORT=${port}. Choose another DB_PORT.`,
        );
      }
    }
  }
  throw new Failure(`No free port from ${first} on. Write another DB_PORT in .env.`);
}

/** @param {string} root @param {import("./env.js").Env} env @param {number} port */
function keepPort(root, env, port) {
  if (String(port) === env.DB_PORT) return;
  console.log(`The database is on port ${port}, not ${env.DB_PORT}: DB_PORT in .env was changed.`);
  writeEnv(root, "DB_PORT", String(port));
}

/** @param {string} root */
const dataDir = (root) => path.join(root, `.data/pg${POSTGRES_MAJOR}`);

/** @param {string} root @param {import("./env.js").Env} env */
function usesDocker(root, env) {
  return (env.DB_MODE === "docker" || lastMode(root) === "docker") && dockerAnswers();
}
