/**
 * Starts a PostgreSQL as a Linux distribution ships it, with its default settings. It has a JIT compiler, which the
 * embedded server of the other tests does not have.
 */
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  chownSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { freePort } from "./free-port.js";

export interface StockPostgres {
  /** Address of its `postgres` database, over TCP on 127.0.0.1, as superuser. */
  url: string;
  port: number;
  password: string;
  /** Folder of its Unix socket. */
  socketFolder: string;
  /** Returns what the server has logged so far. */
  log(): string;
  stop(): Promise<void>;
}

export interface StockOptions {
  /** Settings other than the defaults. */
  settings?: Record<string, string>;
  /** Address to listen on besides 127.0.0.1; its clients need the password. */
  alsoOn?: string;
}

const root = "/usr/lib/postgresql";

/** Returns the folder with the server programs of the newest installed version; null if none is installed. */
function findPrograms(): string | null {
  if (!existsSync(root)) return null;
  const versions = readdirSync(root).filter((name) => existsSync(join(root, name, "bin/initdb")));
  const newest = versions.toSorted((a, b) => Number(a) - Number(b)).at(-1);
  return newest === undefined ? null : join(root, newest, "bin");
}

const programs = findPrograms();

/** Null if a stock server can be started here; otherwise the reason. */
export const stockPostgresMissing =
  programs === null ? `there is no PostgreSQL in ${root} (Debian's package is "postgresql")` : null;

/**
 * Starts a server for one test file. It ends with `stop`, or when this process ends for any reason. The start takes
 * some seconds.
 *
 * @example
 * const server = await startStockPostgres();
 * const client = new pg.Client({ connectionString: server.url });
 * // ...
 * await server.stop();
 */
export async function startStockPostgres({
  settings = {},
  alsoOn,
}: StockOptions = {}): Promise<StockPostgres> {
  if (programs === null) throw new Error(stockPostgresMissing ?? "");
  const folder = mkdtempSync(join(tmpdir(), "stock-postgres-"));
  const user = serverUser();
  const password = randomBytes(16).toString("hex");
  const data = join(folder, "data");
  const passwordFile = join(folder, "password");
  const logFile = join(folder, "log");
  writeFileSync(passwordFile, password, { mode: 0o600 });
  writeFileSync(logFile, "");
  if (user) for (const file of [folder, passwordFile, logFile]) chownSync(file, user.uid, user.gid);
  execFileSync(
    join(programs, "initdb"),
    [
      "--pgdata",
      data,
      "--username=postgres",
      "--auth=scram-sha-256",
      `--pwfile=${passwordFile}`,
      "--no-sync",
    ],
    { ...user, cwd: folder, stdio: ["ignore", "ignore", "pipe"] },
  );
  if (alsoOn)
    writeFileSync(join(data, "pg_hba.conf"), "host all all all scram-sha-256\nlocal all all scram-sha-256\n");
  const port = await freePort();
  const given = {
    port: String(port),
    listen_addresses: ["127.0.0.1", alsoOn].filter(Boolean).join(","),
    unix_socket_directories: folder,
    ...settings,
  };
  const options = Object.entries(given).map(([name, value]) => `-c${name}=${value}`);
  // The shell stops the server when its standard input ends. That also happens when this process is killed.
  const keep = '"$@" 2>> "$0" < /dev/null & server=$!; cat > /dev/null; kill -INT $server; wait $server';
  const server = spawn("/bin/sh", ["-c", keep, logFile, join(programs, "postgres"), "-D", data, ...options], {
    ...user,
    cwd: folder,
    stdio: ["pipe", "ignore", "ignore"],
    detached: true,
  });
  const ended = new Promise((resolve) => server.once("exit", resolve));
  const log = () => readFileSync(logFile, "utf8");
  const stop = async () => {
    server.stdin?.end();
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
  const url = `postgresql://postgres:${password}@127.0.0.1:${port}/postgres`;
  try {
    await answers(url);
  } catch (error) {
    const said = log();
    await stop();
    throw new Error(`The stock PostgreSQL did not start:\n${said}`, { cause: error });
  }
  return { url, port, password, socketFolder: folder, log, stop };
}

/** Returns the user that runs the server if the tests run as root, because the server refuses to run as root. */
function serverUser(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const id = (flag: string) => Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8" }));
  return { uid: id("-u"), gid: id("-g") };
}

async function answers(url: string): Promise<void> {
  const deadline = Date.now() + 120_000;
  for (;;) {
    const client = new pg.Client({ connectionString: url });
    try {
      await client.connect();
      await client.end();
      return;
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
