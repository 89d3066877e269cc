import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, jest } from "@jest/globals";
import { createClient } from "@redis/client";
import { isFree } from "../../templates/scripts/embedded-postgres.js";
import { ensureEnv, writeEnv } from "../../templates/scripts/env.js";
import { runningRedis } from "../../templates/scripts/redis-process.js";
import { probeRedis } from "../../templates/scripts/redis-ready.js";
import { freePort } from "../support/free-port.js";
import { findRedisServer, redisMissing } from "../support/redis.js";
import { openFolder } from "./support/folders.js";
import { processesOf } from "./support/running.js";
import { type ScratchApp, scratchApp } from "./support/scratch-app.js";

// The tests start programs one after the other, on a machine that may be busy.
jest.setTimeout(600_000);

const READY = /^Redis \(redis-server\) is ready on 127\.0\.0\.1:(\d+)\. Its data is in \.data\/redis\.\n$/m;
const STOPPED = "Redis (redis-server) was stopped. Its data is kept.\n";

/** Runs one command on a new connection. */
async function redis(port: number, ...command: string[]): Promise<unknown> {
  const client = createClient({ RESP: 2, socket: { host: "127.0.0.1", port, reconnectStrategy: false } });
  client.on("error", () => {});
  await client.connect();
  try {
    return await client.sendCommand(command);
  } finally {
    client.destroy();
  }
}

/** A Redis that does not belong to the project. */
async function otherRedis(...settings: string[]): Promise<{ port: number; server: ChildProcess }> {
  const port = await freePort();
  const args = ["--port", String(port), "--bind", "127.0.0.1", "--save", "", ...settings];
  const server = spawn(findRedisServer() ?? "", args, { stdio: "ignore" });
  while ((await probeRedis({ host: "127.0.0.1", port })) !== "ready")
    await new Promise((resolve) => setTimeout(resolve, 20));
  return { port, server };
}

const withServer = redisMissing ? describe.skip : describe;
if (redisMissing) console.warn(`The tests of make redis-start are skipped: ${redisMissing}.`);

withServer("the Redis of an application", () => {
  let app: ScratchApp;
  const portInEnv = () => Number(new URL(app.env().QUEUE_DSN ?? "").port);

  beforeAll(async () => {
    app = scratchApp();
    ensureEnv(app.root);
    writeEnv(app.root, "QUEUE_DSN", `redis://localhost:${await freePort()}/3`);
  });

  afterAll(async () => {
    await app.run("redis-stop");
    rmSync(app.root, { recursive: true });
  });

  it("is started by make redis-start: on this machine only, with an append-only file, and evicts nothing", async () => {
    const { code, stdout, stderr } = await app.run("redis-start");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(READY.exec(stdout)?.[1]).toBe(String(portInEnv()));
    for (const [setting, value] of [
      ["appendonly", "yes"],
      ["appendfsync", "everysec"],
      ["maxmemory-policy", "noeviction"],
      ["bind", "127.0.0.1"],
      ["save", ""],
      ["dir", realpathSync(join(app.root, ".data/redis"))],
    ] as const) {
      expect(await redis(portInEnv(), "CONFIG", "GET", setting)).toEqual([setting, value]);
    }
    await redis(portInEnv(), "SET", "kept", "1");
  });

  it("keeps running when it is started a second time", async () => {
    const before = runningRedis(app.root);
    expect(await app.run("redis-start")).toMatchObject({ code: 0, stdout: expect.stringMatching(READY) });
    expect(runningRedis(app.root)).toEqual(before);
  });

  it("keeps its data after make redis-stop and make redis-start", async () => {
    expect((await app.run("redis-stop")).stdout).toBe(STOPPED);
    expect(await isFree(portInEnv())).toBe(true);
    expect((await app.run("redis-stop")).stdout).toBe("No Redis of this project is running.\n");
    await app.run("redis-start");
    expect(await redis(portInEnv(), "GET", "kept")).toBe("1");
  });

  it("starts again with its data after kill -9", async () => {
    process.kill(runningRedis(app.root)?.pid ?? 0, "SIGKILL");
    while (runningRedis(app.root)) await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await app.run("redis-start")).toMatchObject({ code: 0, stdout: expect.stringMatching(READY) });
    expect(await redis(portInEnv(), "GET", "kept")).toBe("1");
  });

  it("is one server when two programs start it at the same time", async () => {
    await app.run("redis-stop");
    const results = await Promise.all([app.run("redis-start.js"), app.run("redis-start.js")]);
    expect(results.map(({ code, stderr }) => ({ code, stderr }))).toEqual(
      Array(2).fill({ code: 0, stderr: "" }),
    );
    expect(await redis(portInEnv(), "GET", "kept")).toBe("1");
    await app.run("redis-stop");
    expect(await isFree(portInEnv())).toBe(true);
    expect(processesOf(app.root).filter((command) => command.includes("redis-server"))).toEqual([]);
  });

  it("does not stop another process that has the id of its dead server", async () => {
    await app.run("redis-start");
    const file = join(app.root, ".data/redis/server.pid");
    const [, port] = readFileSync(file, "utf8").split("\n");
    await app.run("redis-stop");
    writeFileSync(file, `${process.pid}\n${port}\n`);
    expect((await app.run("redis-stop")).stdout).toBe("No Redis of this project is running.\n");
    expect(await app.run("redis-start")).toMatchObject({ code: 0, stdout: expect.stringMatching(READY) });
  });

  it.each(["127.0.0.1", "::1"])(
    "moves to a free port when its port is taken on %s, writes it to .env and names the program",
    async (host) => {
      await app.run("redis-stop");
      const taken = portInEnv();
      const holder = createServer().listen(taken, host);
      await once(holder, "listening");
      const { code, stdout } = await app.run("redis-start");
      holder.close();
      const moved = portInEnv();
      expect(code).toBe(0);
      expect(app.env().QUEUE_DSN).toBe(`redis://localhost:${moved}/3`);
      expect(moved).toBeGreaterThan(taken);
      expect(stdout).toContain(`Redis uses port ${moved}, not ${taken}. QUEUE_DSN in .env was changed.\n`);
      expect(stdout).toContain(`Port ${taken} is taken by `);
      expect(stdout).toContain(`QUEUE_DSN=redis://localhost:${taken}/3 and REDIS_MODE=external in .env.\n`);
      expect(await redis(moved, "GET", "kept")).toBe("1");
    },
  );

  it("keeps its port when QUEUE_DSN is changed while it runs", async () => {
    const port = portInEnv();
    writeEnv(app.root, "QUEUE_DSN", `redis://localhost:${await freePort()}/3`);
    const { stdout } = await app.run("redis-start");
    expect(portInEnv()).toBe(port);
    expect(stdout).toContain("QUEUE_DSN in .env was changed.\n");
    expect(stdout).not.toContain("is taken");
  });

  it("reports why the server did not start, without a stack trace", async () => {
    await app.run("redis-stop");
    const folder = join(app.root, ".data/redis/appendonlydir");
    const [manifest = ""] = readdirSync(folder).filter((name) => name.endsWith(".manifest"));
    const before = readFileSync(join(folder, manifest));
    writeFileSync(join(folder, manifest), "nonsense\n");
    const { code, stderr } = await app.run("redis-start");
    writeFileSync(join(folder, manifest), before);
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/^Redis did not start:\n[\s\S]*manifest/);
    expect(stderr).not.toContain("    at ");
    await app.run("redis-start");
    expect(await redis(portInEnv(), "GET", "kept")).toBe("1");
  });

  it("refuses an unknown REDIS_MODE, and says that Docker does not answer when REDIS_MODE names Docker", async () => {
    expect((await app.run("redis-start", { REDIS_MODE: "embedded" })).stderr).toContain(
      "REDIS_MODE=embedded is not a known mode. Leave it empty (automatic), or write server, docker or external.",
    );
    expect((await app.run("redis-start", { REDIS_MODE: "docker" })).stderr).toContain(
      "This project's Redis is in Docker, but Docker (daemon and compose plugin) does not answer.",
    );
  });

  describe("that does not belong to the project", () => {
    let other: Awaited<ReturnType<typeof otherRedis>>;
    beforeAll(async () => {
      other = await otherRedis("--requirepass", "s3cret");
    });
    afterAll(() => void other.server.kill("SIGKILL"));

    it.each<
      [string, (port: number) => [environment: Record<string, string>, inFile: Record<string, string>]]
    >([
      ["has a password", (port) => [{}, { QUEUE_DSN: `redis://:s3cret@localhost:${port}/0` }]],
      ["is set by the environment", (port) => [{ QUEUE_DSN: `redis://localhost:${port}/0` }, {}]],
      [
        "has REDIS_MODE=external",
        (port) => [{}, { QUEUE_DSN: `redis://localhost:${port}/0`, REDIS_MODE: "external" }],
      ],
    ])("is used when it %s, and is never started or stopped", async (_, settings) => {
      const before = app.env();
      const [environment, inFile] = settings(other.port);
      for (const [name, value] of Object.entries(inFile)) writeEnv(app.root, name, value);
      const started = await app.run("redis-start", environment);
      const stopped = await app.run("redis-stop", environment);
      for (const name of Object.keys(inFile)) writeEnv(app.root, name, before[name] ?? "");
      const source = "QUEUE_DSN" in environment ? "the environment" : ".env";
      const name = `localhost:${other.port}/0 (QUEUE_DSN from ${source})`;
      expect(started).toEqual({ code: 0, stdout: `Using the Redis server ${name}.\n`, stderr: "" });
      expect(stopped.stdout).toContain(`The Redis server ${name} does not belong to this project.`);
      expect(await probeRedis({ host: "127.0.0.1", port: other.port })).toBe("ready");
    });

    it("is reported without its password when it does not answer, is no Redis, or the address is wrong", async () => {
      const closed = await app.run("redis-start", { QUEUE_DSN: "redis://:s3cret@127.0.0.1:1/0" });
      expect(closed.code).not.toBe(0);
      expect(closed.stderr).toContain(
        "No Redis server answers at 127.0.0.1:1/0 (QUEUE_DSN from the environment).\n" +
          "Start it, correct QUEUE_DSN, or remove it from the environment: the queue then uses PostgreSQL.",
      );
      const silent = createServer((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n")).listen(
        0,
        "127.0.0.1",
      );
      await once(silent, "listening");
      const { port } = silent.address() as { port: number };
      const wrong = await app.run("redis-start", { QUEUE_DSN: `redis://:s3cret@127.0.0.1:${port}` });
      silent.close();
      expect(wrong.stderr).toContain(`No Redis server answers at 127.0.0.1:${port}/0`);
      const path = await app.run("redis-start", { QUEUE_DSN: "redis://:s3cret@127.0.0.1/zero" });
      expect(path.stderr).toContain(
        "QUEUE_DSN (from the environment) has a database that is not a whole number",
      );
      const tls = await app.run("redis-start", {
        QUEUE_DSN: "rediss://:s3cret@127.0.0.1?ca=/nowhere/ca.pem",
      });
      expect(tls.stderr).toContain("QUEUE_DSN (from the environment) names a file in ca that cannot be read");
      expect([closed, wrong, path, tls].map(({ stderr }) => stderr).join()).not.toMatch(/s3cret| {4}at /);
    });

    it.each([
      ["cluster", "", "the Redis cluster", "node of a Redis cluster"],
      ["sentinel", "/mymaster/0", "the Redis behind the Sentinels", "Redis Sentinel"],
    ])("can be a %s: one of its nodes must answer", async (kind, path, name, part) => {
      const address = (port: number) => `127.0.0.1:1,127.0.0.1:${port}${path}`;
      const start = (port: number) =>
        app.run("redis-start", { QUEUE_DSN: `redis+${kind}://:s3cret@${address(port)}` });
      expect((await start(other.port)).stdout).toBe(
        `Using ${name} ${address(other.port)} (QUEUE_DSN from the environment).\n`,
      );
      expect((await start(2)).stderr).toContain(
        `No ${part} answers at ${address(2)} (QUEUE_DSN from the environment).\n`,
      );
    });
  });

  it("is not started when the queue uses PostgreSQL", async () => {
    const dsn = app.env().QUEUE_DSN ?? "";
    writeEnv(app.root, "QUEUE_DSN", "");
    const { code, stderr } = await app.run("redis-start");
    writeEnv(app.root, "QUEUE_DSN", dsn);
    expect(code).not.toBe(0);
    expect(stderr).toContain(
      "The queue uses PostgreSQL, so there is no Redis to start. For a queue on Redis, write\n" +
        "QUEUE_DSN=redis://localhost:6379/0 in .env.\n",
    );
  });
});

describe("an application whose queue is on Redis, without redis-server", () => {
  let app: ScratchApp;
  // Not below the application: its package.json would make a program without an extension an ES module.
  const bin = openFolder();
  const state = join(bin, "docker.json");

  beforeAll(async () => {
    app = scratchApp();
    ensureEnv(app.root);
    writeEnv(app.root, "QUEUE_DSN", `redis://localhost:${await freePort()}/0`);
    symlinkSync(process.execPath, join(bin, "node"));
  });
  afterAll(() => {
    if (existsSync(state)) process.kill(JSON.parse(readFileSync(state, "utf8")).pid);
    for (const folder of [app.root, bin]) rmSync(folder, { recursive: true });
  });

  it("says how to install Redis, and that an empty QUEUE_DSN uses PostgreSQL", async () => {
    const { code, stderr } = await app.run("redis-start.js", { PATH: bin });
    expect(code).toBe(1);
    expect(stderr).toBe(
      "The queue is on Redis (QUEUE_DSN in .env), but neither redis-server nor Docker was found.\n" +
        "Install Redis (Debian, Ubuntu: apt install redis-server; macOS: brew install redis), or start Docker.\n" +
        "Or leave QUEUE_DSN empty in .env: the queue then uses PostgreSQL.\n",
    );
  });

  // There is no Docker daemon. This program takes its place: it writes down its arguments, and publishes the port of a
  // real redis-server, which answers only after `up` has ended.
  (redisMissing ? it.skip : it)("uses Docker, and uses it again at the next start and stop", async () => {
    const docker = join(bin, "docker");
    writeFileSync(
      docker,
      `#!${process.execPath}
      const { spawn } = require("node:child_process");
      const fs = require("node:fs");
      const args = process.argv.slice(2);
      fs.appendFileSync(${JSON.stringify(`${state}.log`)}, args.join(" ") + "\\n");
      const running = fs.existsSync(${JSON.stringify(state)}) && JSON.parse(fs.readFileSync(${JSON.stringify(state)}));
      if (args.includes("port")) {
        if (!running) process.exit(1);
        console.log("127.0.0.1:" + running.port);
      } else if (args.includes("up") && !running) {
        const port = process.env.REDIS_PORT;
        const server = spawn("/bin/sh", ["-c", "sleep 1; exec " + ${JSON.stringify(findRedisServer())} + " --port " + port + " --bind 127.0.0.1 --save ''"], { detached: true, stdio: "ignore" });
        server.unref();
        fs.writeFileSync(${JSON.stringify(state)}, JSON.stringify({ port, pid: server.pid }));
      } else if (args.includes("down")) {
        process.kill(running.pid);
        fs.rmSync(${JSON.stringify(state)});
      }\n`,
    );
    chmodSync(docker, 0o755);
    const PATH = bin;
    const dsn = new URL(app.env().QUEUE_DSN ?? "");
    const started = await app.run("redis-start.js", { PATH });
    expect(started).toEqual({
      code: 0,
      stdout: `Redis (Docker) is ready on 127.0.0.1:${dsn.port}.\n`,
      stderr: "",
    });
    // redis-server is installed now, but another server would be empty.
    const both = { PATH: `${PATH}:${process.env.PATH}` };
    expect((await app.run("redis-start.js", both)).stdout).toContain("Redis (Docker) is ready on");
    expect(runningRedis(app.root)).toBeUndefined();
    expect((await app.run("redis-stop.js", both)).stdout).toBe(
      "Redis (docker) was stopped. Its data is kept.\n",
    );
    expect(existsSync(state)).toBe(false);
    const commands = new Set(readFileSync(`${state}.log`, "utf8").trim().split("\n"));
    expect([...commands]).toEqual([
      "info",
      "compose version",
      "compose --file docker-compose.redis.yml port redis 6379",
      "compose --file docker-compose.redis.yml up --detach --wait --wait-timeout 120 redis",
      "compose --file docker-compose.redis.yml down",
    ]);
  });
});
