// The database of a run: an embedded PostgreSQL of its own, with every durability setting on, or the server that
// BENCH_DATABASE_URL names. The embedded one lives in a process that waits for the end of its standard input: however
// the run ends (finished, Ctrl-C, kill -9), the pipe closes, the server stops and its folder goes.
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import pg from "pg";
import { destroyCluster, startCluster } from "../templates/scripts/embedded-postgres.js";

/** No checkpoint in the middle of a measurement: it would be written for one contestant and not for the other. */
const SETTINGS = {
  fsync: "on",
  synchronous_commit: "on",
  full_page_writes: "on",
  shared_buffers: "512MB",
  max_wal_size: "4GB",
  checkpoint_timeout: "30min",
};

const SHOWN = [
  "server_version",
  "fsync",
  "synchronous_commit",
  "full_page_writes",
  "wal_sync_method",
  "shared_buffers",
  "max_wal_size",
];

/** Answers the server's address, and how to let it go. */
export async function startDatabase() {
  const given = process.env.BENCH_DATABASE_URL;
  if (given) return { url: given, stop: async () => {} };
  const keeper = spawn(process.execPath, [import.meta.filename], {
    stdio: ["pipe", "pipe", "inherit"],
    detached: true,
  });
  const ended = new Promise((resolve) => keeper.once("exit", resolve));
  const url = await Promise.race([
    new Promise((resolve) => createInterface({ input: keeper.stdout }).once("line", resolve)),
    ended.then((code) => {
      throw new Error(`The embedded PostgreSQL did not start (exit code ${code}); its reason is above.`);
    }),
  ]);
  return {
    url,
    stop: async () => {
      keeper.stdin.end();
      await ended;
    },
  };
}

/** An empty database of a contestant's own. Answers its address. */
export async function createDatabase(serverUrl, name) {
  await dropDatabase(serverUrl, name);
  await withClient(serverUrl, (client) => client.query(`create database ${pg.escapeIdentifier(name)}`));
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return url.href;
}

export const dropDatabase = (serverUrl, name) =>
  withClient(serverUrl, (client) =>
    client.query(`drop database if exists ${pg.escapeIdentifier(name)} with (force)`),
  );

/** The server's settings that a figure depends on. */
export const readSettings = (serverUrl) =>
  withClient(serverUrl, async (client) => {
    const { rows } = await client.query(
      "select name, current_setting(name) as value from unnest($1::text[]) as name",
      [SHOWN],
    );
    return Object.fromEntries(rows.map(({ name, value }) => [name, value]));
  });

export async function withClient(url, work) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function keep() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "saq-bench-"));
  // As root, the server runs as another user, who must be able to pass through.
  fs.chmodSync(folder, 0o711);
  const dataDir = path.join(folder, "data");
  const over = new Promise((resolve) => {
    process.stdin.resume().once("end", resolve).once("error", resolve);
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, resolve);
  });
  process.stdout.on("error", () => {});
  try {
    const password = randomBytes(16).toString("hex");
    const cluster = await startCluster({ dataDir, port: 0, password, settings: SETTINGS });
    process.stdout.write(`${cluster.url("postgres")}\n`);
    await over;
  } finally {
    await destroyCluster({ dataDir });
    fs.rmSync(folder, { recursive: true, force: true });
    process.stdin.destroy();
  }
}

if (process.argv[1] === import.meta.filename) await keep();
