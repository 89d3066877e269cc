// Connects to the database with the user's name and password, and explains a failure in one or two sentences.
import { clientConfigs, nameOfAddress, parsePostgresAddress } from "../backend/saq/postgres-address.js";
import { databaseAddress, sourceOf } from "./env.js";
import { Failure } from "./failure.js";
import { loadDriver } from "./packages.js";
import { waitForServer } from "./postgres-ready.js";

const LOGIN_TIMEOUT_MS = 5000;
const SQLSTATE = {
  wrongPassword: "28P01",
  noSuchDatabase: "3D000",
  duplicateDatabase: "42P04",
  uniqueViolation: "23505",
};

/** Returns `host:port/database` of DATABASE_URL, never its password. @param {import("./env.js").Env} env */
export function externalName(env) {
  return `${nameOfAddress(databaseAddress(env))} (DATABASE_URL from ${sourceOf("DATABASE_URL")})`;
}

/**
 * Returns true if at least one of the servers in the settings accepts connections.
 * @param {import("./env.js").Env} env
 * @param {number} timeoutMs maximum wait in ms
 */
export async function isDatabaseReady(env, timeoutMs) {
  const { hosts } = databaseAddress(env);
  const ready = await Promise.all(hosts.map((host) => waitForServer({ ...host, timeoutMs })));
  return ready.includes(true);
}

/**
 * Checks that the server of DATABASE_URL is reachable and, if the driver is installed, that the user can log in. Throws
 * a Failure otherwise.
 * @param {string} root @param {import("./env.js").Env} env
 */
export async function checkExternal(root, env) {
  if (!(await isDatabaseReady(env, LOGIN_TIMEOUT_MS))) {
    throw new Failure(
      `No PostgreSQL server answers at ${externalName(env)}.\n` +
        `Start it, or remove DATABASE_URL from ${sourceOf("DATABASE_URL")} to use this project's own database.`,
    );
  }
  try {
    await query(root, databaseAddress(env), "SELECT 1");
  } catch (error) {
    const { code, message } = /** @type {import("pg").DatabaseError} */ (error);
    if (code === SQLSTATE.noSuchDatabase) {
      throw new Failure(
        `The server has no database ${externalName(env)}. Create it, or correct DATABASE_URL.`,
      );
    }
    throw new Failure(
      `The database ${externalName(env)} refuses the connection: ${message}. Correct DATABASE_URL.`,
    );
  }
}

/**
 * Creates a database on the project's own server, unless it exists.
 * @param {string} root @param {string} adminUrl @param {string} name
 */
export async function createDatabase(root, adminUrl, name) {
  const admin = parsePostgresAddress(`${adminUrl}?sslmode=disable`, {});
  try {
    const found = await query(root, admin, "SELECT 1 FROM pg_database WHERE datname = $1", [name]);
    if (found?.length === 0) await query(root, admin, `CREATE DATABASE "${name.replaceAll('"', '""')}"`);
  } catch (error) {
    const { code, message } = /** @type {import("pg").DatabaseError} */ (error);
    if (code === SQLSTATE.wrongPassword && process.env.DB_PASSWORD) {
      throw new Failure(
        "This project's database was created with another DB_PASSWORD than the one in the environment. " +
          "Unset that variable.",
      );
    }
    if (code === SQLSTATE.wrongPassword) {
      throw new Failure(
        "This project's database was created with another DB_PASSWORD than the one in .env.\n" +
          "Restore the old password, or run make db-reset: it deletes all data and starts an empty database.",
      );
    }
    // Two starts ran at the same time, and the other one has created the database.
    if (code === SQLSTATE.duplicateDatabase || code === SQLSTATE.uniqueViolation) return;
    throw new Failure(
      `This project's PostgreSQL runs, but the database ${name} could not be created: ${message}\n` +
        "Check DB_NAME and DB_PASSWORD in .env, and variables that begin with PG in the environment.",
    );
  }
}

/**
 * Runs a statement on the first host of an address on which the user can log in.
 * @param {string} root @param {import("../backend/saq/postgres-address.js").PostgresAddress} address
 * @param {string} text @param {unknown[]} [values]
 * @returns {Promise<unknown[] | undefined>} the rows; undefined if no driver is installed yet
 */
async function query(root, address, text, values) {
  const driver = loadDriver(root);
  if (!driver) return undefined;
  let failure;
  for (const config of clientConfigs(address)) {
    const client = new driver.Client({ connectionTimeoutMillis: LOGIN_TIMEOUT_MS, ...config });
    try {
      await client.connect();
      return (await client.query(text, values)).rows;
    } catch (error) {
      failure = error;
    } finally {
      // This is also needed after a failed login: its open connection would keep this process alive until the server
      // closes it, which takes a minute.
      await client.end();
    }
  }
  throw failure;
}
