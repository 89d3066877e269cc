// Starts a temporary PostgreSQL for a test run. A separate process manages the server and waits for the end of its
// standard input. When the test run ends in any way (finished, Ctrl-C, kill -9), the pipe closes; the process then
// stops the server and deletes its folder.
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { destroyCluster, startCluster } from "./embedded-postgres.js";
import { run } from "./failure.js";

/** Without durability: it costs time, and the data of a test need no protection. */
const FAST = { fsync: "off", synchronous_commit: "off", full_page_writes: "off" };

/** @type {typeof import("./temporary-postgres.js").startTemporaryPostgres} */
export async function startTemporaryPostgres({ settings = FAST } = {}) {
  const manager = spawn(process.execPath, [import.meta.filename, JSON.stringify(settings)], {
    stdio: ["pipe", "pipe", "inherit"],
    // It has its own session, because Ctrl-C must reach only the tests.
    detached: true,
  });
  const ended = new Promise((resolve) => manager.once("exit", resolve));
  const url = await Promise.race([
    new Promise((resolve) => createInterface({ input: manager.stdout }).once("line", resolve)),
    ended.then((code) => {
      throw new Error(`The temporary PostgreSQL did not start (exit code ${code}); the reason is above.`);
    }),
  ]);
  manager.unref();
  /** @type {import("node:net").Socket} */ (manager.stdin).unref();
  /** @type {import("node:net").Socket} */ (manager.stdout).unref();
  return {
    url,
    stop: async () => {
      manager.ref();
      manager.stdin.end();
      await ended;
    },
  };
}

/** @param {Record<string, string>} settings */
async function runServer(settings) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "saq-test-"));
  // If this process runs as root, the server runs as another user, who must be able to pass through this folder.
  fs.chmodSync(folder, 0o711);
  const dataDir = path.join(folder, "data");
  const ended = new Promise((resolve) => {
    process.stdin.resume().once("end", resolve).once("error", resolve);
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, resolve);
  });
  // If the test run was killed during the start, nothing reads this output, and a write fails.
  process.stdout.on("error", () => {});
  try {
    const password = randomBytes(16).toString("hex");
    const cluster = await startCluster({ dataDir, port: 0, password, settings });
    process.stdout.write(`${cluster.url("postgres")}\n`);
    await ended;
  } finally {
    await destroyCluster({ dataDir });
    fs.rmSync(folder, { recursive: true, force: true });
    process.stdin.destroy();
  }
}

// No top-level await: Jest loads its global set-up with require(), which refuses modules with a top-level await.
if (process.argv[1] === import.meta.filename) void run(() => runServer(JSON.parse(process.argv[2] ?? "{}")));
