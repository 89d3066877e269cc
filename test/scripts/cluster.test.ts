import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it, jest } from "@jest/globals";
import pg from "pg";
import {
  type Cluster,
  type ClusterOptions,
  clusterStatus,
  destroyCluster,
  PortTakenError,
  startCluster,
  stopCluster,
} from "../../templates/scripts/embedded-postgres.js";
import { freePort } from "../support/free-port.js";
import { openFolder } from "./support/folders.js";
import { sql } from "./support/sql.js";

// initdb takes a second, and more while other tests run.
jest.setTimeout(600_000);

const PASSWORD = "p@ss/w:rd' ü";
const settings = { fsync: "off", full_page_writes: "off" };
const isRoot = process.getuid?.() === 0;

describe("a cluster", () => {
  let folder: string;
  let dataDir: string;
  let options: ClusterOptions;
  let cluster: Cluster;

  beforeAll(async () => {
    folder = openFolder();
    dataDir = join(folder, "pg18");
    options = { dataDir, port: 0, password: PASSWORD, settings };
    const { LANG, LC_ALL, LC_CTYPE } = process.env;
    for (const name of ["LANG", "LC_ALL", "LC_CTYPE"]) delete process.env[name];
    cluster = await startCluster(options);
    Object.assign(process.env, {
      ...(LANG && { LANG }),
      ...(LC_ALL && { LC_ALL }),
      ...(LC_CTYPE && { LC_CTYPE }),
    });
    await sql(cluster.url("postgres"), "CREATE TABLE kept AS SELECT 'é' AS word");
  });

  afterAll(async () => {
    await destroyCluster({ dataDir });
    rmSync(folder, { recursive: true });
  });

  const pid = () => clusterStatus({ dataDir }).pid ?? 0;
  const pidFile = () => join(realpathSync(dataDir), "postmaster.pid");
  const keptRows = () => sql(cluster.url("postgres"), "SELECT word, upper(word) AS upper FROM kept");

  it("uses UTF-8 and knows the upper case of non-ASCII letters, even if the environment has no LANG", async () => {
    const [row] = await sql(cluster.url("postgres"), "SHOW server_encoding");
    expect(row).toEqual({ server_encoding: "UTF8" });
    expect(await keptRows()).toEqual([{ word: "é", upper: "É" }]);
  });

  it("has the given settings and allows 200 connections", async () => {
    const text =
      "SELECT current_setting('fsync') AS fsync, current_setting('max_connections') AS connections";
    expect(await sql(cluster.url("postgres"), text)).toEqual([{ fsync: "off", connections: "200" }]);
  });

  it("refuses a connection with a wrong password", async () => {
    const wrong = new URL(cluster.url("postgres"));
    wrong.password = "guessed";
    await expect(sql(wrong.href, "SELECT 1")).rejects.toMatchObject({ code: "28P01" });
  });

  it("listens on 127.0.0.1 only and has no Unix socket", async () => {
    const text =
      "SELECT current_setting('listen_addresses') AS tcp, current_setting('unix_socket_directories') AS unix";
    expect(await sql(cluster.url("postgres"), text)).toEqual([{ tcp: "127.0.0.1", unix: "" }]);
  });

  it("runs in its own process group, so that a Ctrl-C in the terminal does not reach it", () => {
    const group = (process_: number) =>
      Number(spawnSync("ps", ["-o", "pgid=", "-p", String(process_)], { encoding: "utf8" }).stdout);
    expect(group(pid())).toBe(pid());
    expect(group(pid())).not.toBe(group(process.pid));
  });

  it("returns the running server for a second start", async () => {
    const before = pid();
    const again = await startCluster({ ...options, port: await freePort() });
    expect(again.port).toBe(cluster.port);
    expect(pid()).toBe(before);
  });

  it("keeps the data after a stop and a start on another port", async () => {
    await cluster.stop();
    expect(clusterStatus({ dataDir })).toMatchObject({ exists: true, running: false });
    const port = await freePort();
    cluster = await startCluster({ ...options, port });
    expect(cluster.port).toBe(port);
    expect(await keptRows()).toHaveLength(1);
  });

  it("starts again and keeps the data after kill -9 of the server with open connections", async () => {
    const clients = Array.from(
      { length: 5 },
      () => new pg.Client({ connectionString: cluster.url("postgres") }),
    );
    for (const client of clients) client.on("error", () => undefined);
    await Promise.all(clients.map((client) => client.connect()));
    const gone = Promise.all(clients.map((client) => new Promise((resolve) => client.once("end", resolve))));
    const cutOff = expect(clients[0]?.query("SELECT pg_sleep(60)")).rejects.toThrow();
    const killed = pid();
    process.kill(killed, "SIGKILL");
    cluster = await startCluster(options);
    expect(pid()).not.toBe(killed);
    expect(await keptRows()).toHaveLength(1);
    await gone;
    await cutOff;
  });

  describe("with a stale postmaster.pid that contains the process id of another program", () => {
    // The process belongs to the server's own user: PostgreSQL itself ignores the processes of other users.
    const owner = () => statSync(realpathSync(dataDir));
    const plantStalePid = async () => {
      const { uid, gid } = owner();
      const stranger = spawn("sleep", ["60"], isRoot ? { uid, gid, stdio: "ignore" } : { stdio: "ignore" });
      await once(stranger, "spawn");
      const text = readFileSync(pidFile(), "utf8").replace(/^\d+/, String(stranger.pid));
      await cluster.stop();
      writeFileSync(pidFile(), text, { mode: 0o600 });
      chownSync(pidFile(), uid, gid);
      return stranger;
    };

    it("counts as stopped, does not stop that program, and starts again", async () => {
      const stranger = await plantStalePid();
      try {
        expect(clusterStatus({ dataDir }).running).toBe(false);
        expect(await stopCluster({ dataDir })).toBe(false);
        cluster = await startCluster(options);
        expect(await keptRows()).toHaveLength(1);
        expect(stranger.exitCode ?? stranger.signalCode).toBeNull();
      } finally {
        stranger.kill("SIGKILL");
      }
    });
  });

  it("refuses a port that another program holds, with a PortTakenError", async () => {
    await cluster.stop();
    const holder = createServer().listen(0, "127.0.0.1");
    await once(holder, "listening");
    const { port } = holder.address() as { port: number };
    const refused = startCluster({ ...options, port });
    await expect(refused).rejects.toBeInstanceOf(PortTakenError);
    await expect(refused).rejects.toThrow(`Port ${port} on 127.0.0.1 is taken by another program.`);
    holder.close();
    cluster = await startCluster(options);
  });

  it("reports the server's reason when the server does not start", async () => {
    await cluster.stop();
    const wrong = startCluster({ ...options, settings: { shared_buffers: "1kB" } });
    await expect(wrong).rejects.toThrow(/PostgreSQL did not start:[\s\S]*shared_buffers/);
    cluster = await startCluster(options);
  });

  it("refuses a setting that a shell could misread", async () => {
    await cluster.stop();
    const wrong = startCluster({ ...options, settings: { shared_buffers: "1; touch /tmp/x" } });
    await expect(wrong).rejects.toThrow("This is not a valid PostgreSQL setting");
    cluster = await startCluster(options);
  });
});

it("a cluster works in a folder whose name contains special characters of the shell", async () => {
  const folder = openFolder('saq it\'s $HOME "quoted" é-');
  const dataDir = join(folder, "sub folder", "pg18");
  const cluster = await startCluster({ dataDir, port: 0, password: PASSWORD, settings });
  expect(await sql(cluster.url("postgres"), "SELECT 1 AS one")).toEqual([{ one: 1 }]);
  await destroyCluster({ dataDir });
  expect(existsSync(dataDir)).toBe(false);
  rmSync(folder, { recursive: true });
});

it("two first starts at the same time create one cluster", async () => {
  const folder = openFolder();
  const dataDir = join(folder, "pg18");
  const start = () => startCluster({ dataDir, port: 0, password: PASSWORD, settings });
  const [one, two] = await Promise.all([start(), start()]);
  expect(one.port).toBe(two.port);
  await destroyCluster({ dataDir });
  rmSync(folder, { recursive: true });
});

it("a first start that is interrupted leaves no files behind", async () => {
  const folder = openFolder();
  const runner = join(dirname(dirname(import.meta.dirname)), "templates/scripts/embedded-postgres.js");
  const options = JSON.stringify({ dataDir: join(folder, "pg18"), port: 0, password: PASSWORD });
  const program = `(await import(${JSON.stringify(pathToFileURL(runner).href)})).startCluster(${options})`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
    detached: true,
    stdio: "ignore",
  });
  const ended = once(child, "exit");
  while (readdirSync(folder).every((name) => !existsSync(join(folder, name, "PG_VERSION")))) await sleep(10);
  process.kill(-(child.pid ?? 0), "SIGINT");
  expect(await ended).toEqual([1, null]);
  expect(readdirSync(folder)).toEqual([]);
  rmSync(folder, { recursive: true });
});

it("a program that ignores SIGINT can start and stop a cluster while its process group gets SIGINT", async () => {
  const folder = openFolder();
  const dataDir = join(folder, "pg18");
  const runner = join(dirname(dirname(import.meta.dirname)), "templates/scripts/embedded-postgres.js");
  const options = JSON.stringify({ dataDir, port: 0, password: PASSWORD, settings });
  const program = `
    process.on("SIGINT", () => {});
    const { startCluster, stopCluster } = await import(${JSON.stringify(pathToFileURL(runner).href)});
    await startCluster(${options});
    await stopCluster({ dataDir: ${JSON.stringify(dataDir)} });
    console.log("done");
    // While Node ends, a signal kills it whatever it listens to.
    setTimeout(() => {}, 500);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", program], {
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  let said = "";
  const hear = (text: unknown) => {
    said += text;
  };
  child.stderr.on("data", hear);
  child.stdout.on("data", hear);
  const ended = once(child, "exit");
  while (!existsSync(dataDir)) await sleep(10);
  // From now on the program starts and stops the cluster. A Ctrl-C at any moment must change nothing.
  const interrupting = setInterval(() => process.kill(-(child.pid ?? 0), "SIGINT"), 20);
  await Promise.race([once(child.stdout, "data"), ended]);
  clearInterval(interrupting);
  expect({ code: (await ended)[0], said }).toEqual({ code: 0, said: "done\n" });
  expect(clusterStatus({ dataDir }).running).toBe(false);
  await destroyCluster({ dataDir });
  rmSync(folder, { recursive: true });
});

// Ordinary users own the folders in which they work. Only for root does the server run as another user.
(isRoot ? describe : describe.skip)("a cluster that root starts", () => {
  it("keeps the data behind a symbolic link if the server's user cannot enter the folder, and removes them", async () => {
    const folder = openFolder();
    chmodSync(folder, 0o700);
    const dataDir = join(folder, "project", ".data", "pg18");
    const options = { dataDir, port: 0, password: PASSWORD, settings };
    const cluster = await startCluster(options);
    const real = realpathSync(dataDir);
    expect(lstatSync(dataDir).isSymbolicLink()).toBe(true);
    expect(statSync(real).mode & 0o777).toBe(0o700);
    await sql(cluster.url("postgres"), "CREATE TABLE kept AS SELECT 1 AS one");
    await cluster.stop();
    const again = await startCluster(options);
    expect(await sql(again.url("postgres"), "SELECT one FROM kept")).toEqual([{ one: 1 }]);
    await destroyCluster({ dataDir });
    expect(existsSync(real)).toBe(false);
    rmSync(folder, { recursive: true });
  });

  it("starts with copied data that belong to root", async () => {
    const folder = openFolder();
    const dataDir = join(folder, "pg18");
    const options = { dataDir, port: 0, password: PASSWORD, settings };
    const first = await startCluster(options);
    await sql(first.url("postgres"), "CREATE TABLE kept AS SELECT 1 AS one");
    await first.stop();
    const copy = join(folder, "copy");
    cpSync(dataDir, copy, { recursive: true });
    chmodSync(copy, 0o755);
    expect(statSync(copy).uid).toBe(0);
    const second = await startCluster({ ...options, dataDir: copy });
    expect(await sql(second.url("postgres"), "SELECT one FROM kept")).toEqual([{ one: 1 }]);
    expect(statSync(copy).mode & 0o777).toBe(0o700);
    await destroyCluster({ dataDir: copy });
    await destroyCluster({ dataDir });
    rmSync(folder, { recursive: true });
  });

  it("never runs the server as root", async () => {
    const folder = openFolder();
    mkdirSync(join(folder, ".data"));
    const dataDir = join(folder, ".data", "pg18");
    await startCluster({ dataDir, port: 0, password: PASSWORD, settings });
    expect(statSync(dataDir).uid).not.toBe(0);
    await destroyCluster({ dataDir });
    rmSync(folder, { recursive: true });
  });
});
