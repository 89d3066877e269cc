// Runs an installed redis-server (or valkey-server) with its data in .data/redis. It listens only on this machine, and
// writes every change to its append-only file.
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { bindError, HOST, isFree, PortTakenError } from "./embedded-postgres.js";
import { Failure } from "./failure.js";
import { waitForRedis } from "./redis-ready.js";
import { isServerOf } from "./server-process.js";
import { withStartLock } from "./start-lock.js";

const PROGRAMS = ["redis-server", "valkey-server"];
/** Loading the data of a previous run may take long. */
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 30_000;
const PROBE_MS = 3000;

/**
 * Every change is on disk within a second. Nothing is evicted: jobs would disappear. There is no snapshot beside the
 * append-only file.
 */
const SETTINGS = { appendonly: "yes", appendfsync: "everysec", "maxmemory-policy": "noeviction", save: "" };

/** @param {string} root */
const dataDir = (root) => path.join(root, ".data/redis");
/** @param {string} root */
const pidFile = (root) => path.join(dataDir(root), "server.pid");
/** @param {string} root */
const logFile = (root) => path.join(dataDir(root), "server.log");

/** Returns the name of an installed server program, or undefined. */
export function findRedisServer() {
  return PROGRAMS.find(
    (name) => spawnSync(name, ["--version"], { stdio: "ignore", timeout: PROBE_MS }).status === 0,
  );
}

/**
 * Returns this project's server, if it runs.
 * @param {string} root
 * @returns {{ pid: number, port: number } | undefined}
 */
export function runningRedis(root) {
  let text;
  try {
    text = fs.readFileSync(pidFile(root), "utf8");
  } catch {
    return undefined;
  }
  const [pid = 0, port = 0] = text.split("\n").map(Number);
  return isServerOf(pid, dataDir(root), /redis|valkey/i) ? { pid, port } : undefined;
}

/**
 * Starts this project's server, unless it runs already, and waits until it answers.
 * @param {string} root
 * @param {string} program
 * @param {(launch: (port: number) => Promise<number>) => Promise<number>} choosePort calls `launch` with ports until
 *   one is free: it throws PortTakenError if another program uses the port
 * @returns {Promise<{ port: number, started: boolean }>}
 */
export function startRedisProcess(root, program, choosePort) {
  fs.mkdirSync(dataDir(root), { recursive: true, mode: 0o700 });
  return withStartLock(path.join(dataDir(root), "start.lock"), async () => {
    const running = runningRedis(root);
    if (!running) return { port: await choosePort((port) => launch(root, program, port)), started: true };
    await waitUntilReady(root, running.port);
    return { port: running.port, started: false };
  });
}

/**
 * @param {string} root @param {string} program @param {number} port
 * @returns {Promise<number>} the port
 */
async function launch(root, program, port) {
  const errorCode = await bindError(port);
  // 127.0.0.1 and ::1 must both be free: `localhost` is tried as ::1 first, where another server would answer.
  if (errorCode === "EADDRINUSE" || !(await isFree(port, "::1"))) throw new PortTakenError(port);
  if (errorCode === "EACCES") {
    throw new Failure(`Port ${port} is reserved for the administrator. Use 1024 or more in QUEUE_DSN.`);
  }
  const settings = Object.entries({ bind: HOST, port: String(port), ...SETTINGS });
  const log = fs.openSync(logFile(root), "a", 0o600);
  const offset = fs.fstatSync(log).size;
  const server = spawn(
    program,
    settings.flatMap(([name, value]) => [`--${name}`, value]),
    {
      cwd: dataDir(root),
      // Its own session: Ctrl-C in the terminal would stop the server before the worker has stored its last results.
      detached: true,
      stdio: ["ignore", log, log],
    },
  );
  fs.writeFileSync(pidFile(root), `${server.pid}\n${port}\n`);
  fs.closeSync(log);
  server.unref();
  const ended = new AbortController();
  for (const event of ["exit", "error"]) server.once(event, () => ended.abort());
  await waitUntilReady(root, port, ended.signal);
  if (!ended.signal.aborted) return port;
  const text = fs.readFileSync(logFile(root)).subarray(offset).toString("utf8").trim();
  if (/Address already in use/.test(text)) throw new PortTakenError(port);
  throw new Failure(`Redis did not start:\n${text.split("\n").slice(-12).join("\n")}`);
}

/**
 * Waits until the server answers, or until it has ended.
 * @param {string} root @param {number} port @param {AbortSignal} [ended]
 */
async function waitUntilReady(root, port, ended) {
  const ready = await waitForRedis(
    { host: HOST, port },
    { timeoutMs: START_TIMEOUT_MS, ...(ended && { signal: ended }) },
  );
  if (!ready && !ended?.aborted)
    throw new Failure(`Redis runs on ${HOST}:${port} but does not answer. Its log: ${logFile(root)}`);
}

/** Stops the server and waits for its end. Returns false if it did not run. @param {string} root */
export async function stopRedisProcess(root) {
  const running = runningRedis(root);
  if (!running) return false;
  process.kill(running.pid, "SIGTERM");
  const end = Date.now() + STOP_TIMEOUT_MS;
  while (runningRedis(root)) {
    if (Date.now() > end) {
      throw new Failure(
        `Redis (process ${running.pid}) did not stop within ${STOP_TIMEOUT_MS / 1000} s. Its log: ${logFile(root)}`,
      );
    }
    await setTimeout(20);
  }
  fs.rmSync(pidFile(root), { force: true });
  return true;
}
