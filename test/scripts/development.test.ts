import { once } from "node:events";
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, jest } from "@jest/globals";
import { clusterStatus, destroyCluster, isFree } from "../../templates/scripts/embedded-postgres.js";
import { ensureEnv, writeEnv } from "../../templates/scripts/env.js";
import { freePort } from "../support/free-port.js";
import { openFolder } from "./support/folders.js";
import { processesOf, processIdsOf, Running } from "./support/running.js";
import { completeApp, type ScratchApp, scratchApp } from "./support/scratch-app.js";

// The tests start many programs one after the other, on a machine that may be busy.
jest.setTimeout(600_000);

describe("an application whose dependencies are not installed", () => {
  let app: ScratchApp;
  beforeEach(() => {
    app = scratchApp();
    rmSync(join(app.root, "node_modules"), { recursive: true });
  });
  afterEach(() => rmSync(app.root, { recursive: true, force: true }));

  /** Replaces npm by a program, so that nothing is installed. */
  const npm = (program: string) => {
    const file = join(app.root, "npm.js");
    writeFileSync(file, program);
    return { npm_execpath: file };
  };

  it("make start names the command to run first: make build, or npm install if the build exists", async () => {
    expect((await app.run("start")).stderr).toContain("The application is not compiled yet. Run: make build");
    const program = join(app.root, "backend/dist/app/server.js");
    mkdirSync(dirname(program), { recursive: true });
    writeFileSync(program, "");
    const { code, stderr } = await app.run("start");
    expect(code).not.toBe(0);
    expect(stderr).toContain("The dependencies are not installed. Run: npm install");
  });

  it("make test, check, fix and build install missing dependencies first", async () => {
    const environment = npm("console.log('npm', ...process.argv.slice(2)); process.exitCode = 3;");
    const { code, stdout, stderr } = await app.run("install-missing.js", environment);
    expect(code).toBe(1);
    expect(stdout).toMatch(
      /^Installing the dependencies \(npm install\): .*\nnpm install --include=dev --loglevel=notice\n$/,
    );
    expect(stderr).toBe("npm install failed. The reason is above. Run it again: npm install\n");
    const { scripts } = JSON.parse(readFileSync(join(app.root, "package.json"), "utf8"));
    for (const name of ["test", "check", "fix", "build"])
      expect(scripts[name]).toMatch(/^node scripts\/install-missing\.js && /);
  });

  it("make build inside another npm workspace fails with the reason and does not call itself", async () => {
    const outer = openFolder();
    const inner = join(outer, "packages/inner");
    mkdirSync(dirname(inner));
    renameSync(app.root, inner);
    writeFileSync(
      join(outer, "package.json"),
      '{ "name": "outer", "private": true, "workspaces": ["packages/*"] }',
    );
    const build = new Running(inner, ["make", "build"]);
    expect(await build.ended()).not.toBe(0);
    expect(build.output).toContain(`This application is inside the npm workspace of ${outer}.`);
    expect(build.output.match(/is inside the npm workspace/g)).toHaveLength(1);
    rmSync(outer, { recursive: true });
  });

  it("a Ctrl-C during the install is reported as a stop, not as a failure of npm", async () => {
    const environment = npm("console.log('npm runs'); setTimeout(() => {}, 60_000);");
    const install = new Running(app.root, ["node", "scripts/dev-all.js"], environment);
    await install.shows("npm runs");
    install.interrupt();
    expect(await install.ended()).toBe(1);
    expect(install.output).toMatch(
      /npm runs\nThe install was stopped\. Run the same command again to continue\.\n$/,
    );
  });
});

describe("an installed application", () => {
  let app: ScratchApp;
  let api: string;
  const ports: Record<string, number> = {};
  const running: Running[] = [];
  const dataDir = () => join(app.root, ".data/pg18");
  const tasks = () => join(app.root, "backend/app/queue/tasks.ts");

  const start = (...command: string[]) => {
    const process_ = new Running(app.root, command);
    running.push(process_);
    return process_;
  };
  const enqueue = async (message: string) => {
    const response = await fetch(`${api}/queue/example`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ message }),
    });
    expect(response.status).toBe(201);
    return ((await response.json()) as { job_id: string }).job_id;
  };
  const allUp = async (all: Running) => {
    await all.shows("API listening");
    await all.shows("Worker starting");
  };
  /** The system frees a process's memory, with its command line, before its ports. The ports take a moment longer. */
  const becomesFree = async (port = 0) => {
    const end = performance.now() + 60_000;
    while (!(await isFree(port)) && performance.now() < end)
      await new Promise((resolve) => setTimeout(resolve, 50));
    return isFree(port);
  };
  const nothingLeft = async () => {
    expect(await becomesFree(ports.PORT)).toBe(true);
    expect(await becomesFree(ports.FRONTEND_PORT)).toBe(true);
    expect(processesOf(app.root).filter((command) => !/postgres/.test(command))).toEqual([]);
  };

  beforeAll(async () => {
    app = completeApp();
    ensureEnv(app.root);
    for (const name of ["PORT", "FRONTEND_PORT", "DB_PORT"]) {
      ports[name] = await freePort();
      writeEnv(app.root, name, String(ports[name]));
    }
    api = `http://localhost:${ports.PORT}`;
    const source = readFileSync(tasks(), "utf8");
    const slow = source.replace("sleep(250,", 'sleep(message === "slow" ? 4000 : 250,');
    expect(slow).not.toBe(source);
    writeFileSync(tasks(), slow);
  });

  afterEach(async () => {
    for (const process_ of running.splice(0)) {
      try {
        process_.interrupt();
      } catch {
        continue;
      }
      await process_.ended();
    }
  });

  afterAll(async () => {
    await destroyCluster({ dataDir: dataDir() });
    rmSync(app.root, { recursive: true });
  });

  it("make dev-all runs everything, and one Ctrl-C finishes the running job before it stops the database", async () => {
    const all = start("make", "dev-all");
    await allUp(all);
    await all.shows(`http://127.0.0.1:${ports.FRONTEND_PORT}/`);
    expect(all.output).toContain("[backend] ");
    expect(all.output).toContain("[worker] ");
    expect(all.output).toContain("[frontend] ");
    expect((await fetch(`http://127.0.0.1:${ports.FRONTEND_PORT}/health`)).status).toBe(200);
    if (process.platform === "linux") {
      const parts = processesOf(app.root).join("\n");
      for (const program of ["app/server.ts", "app/worker.ts", "vite.js"]) expect(parts).toContain(program);
    }

    await enqueue("slow");
    await all.shows("example task started");
    all.interrupt();
    await all.ended();
    expect(all.output).toMatch(
      /example task finished[\s\S]*Finished exampleTask[\s\S]*PostgreSQL \(embedded\) was stopped\. .*\n/,
    );
    expect(all.output).not.toMatch(/terminating connection|ECONNREFUSED|Error:/);
    expect(clusterStatus({ dataDir: dataDir() }).running).toBe(false);
    await nothingLeft();
  });

  it("make dev-all does not stop a database that was already running", async () => {
    await app.run("db-start");
    const all = start("make", "dev-all");
    await allUp(all);
    all.interrupt();
    await all.ended();
    expect(clusterStatus({ dataDir: dataDir() }).running).toBe(true);
    await nothingLeft();
  });

  it("make dev-all runs in development mode even if NODE_ENV is production", async () => {
    const all = new Running(app.root, ["make", "dev-all"], { NODE_ENV: "production" });
    running.push(all);
    await allUp(all);
    expect(all.output).toContain(`API listening on http://localhost:${ports.PORT}`);
    expect((await fetch(`${api}/saq/`)).status).toBe(200);
    all.interrupt();
    await all.ended();
  });

  it("a killed worker or API restarts after a pause that doubles, or at once when a file is saved", async () => {
    const all = start("make", "dev-all");
    await allUp(all);
    const kill = (script: string) => {
      const found = processIdsOf(app.root, `--import tsx app/${script}`);
      expect(found).toHaveLength(1);
      for (const pid of found) process.kill(pid, "SIGKILL");
    };
    for (const [script, started, part] of [
      ["worker.ts", "Worker starting", "worker"],
      ["server.ts", "API listening", "backend"],
    ] as const) {
      const prefix = `[${part}] ended unexpectedly; it is started again in`;
      for (const seconds of [1, 2]) {
        const seen = all.output.length;
        kill(script);
        await all.shows(`${prefix} ${seconds} s, or when a file is saved`, seen);
        await all.shows(started, seen);
      }
      const seen = all.output.length;
      kill(script);
      await all.shows(`${prefix} 4 s`, seen);
      writeFileSync(tasks(), readFileSync(tasks(), "utf8"));
      await all.shows(started, seen);
    }
    const seen = all.output.length;
    kill("worker.ts");
    // The save may have fixed the cause, so the pauses begin again at 1 s.
    await all.shows("[worker] ended unexpectedly; it is started again in 1 s", seen);
    all.interrupt();
    await all.ended();
    await nothingLeft();
  });

  it.each(["SIGHUP", "SIGTERM"] as const)(
    "%s to dev-all ends everything, as at a closed terminal or the end of the session",
    async (signal) => {
      const all = start("node", "scripts/dev-all.js");
      await allUp(all);
      all.interrupt(signal);
      expect(await all.ended()).toBe(0);
      await nothingLeft();
    },
  );

  it("SIGTERM to make ends everything, even if a shell in between does not pass the signal on", async () => {
    const all = start("make", "dev-all");
    await allUp(all);
    all.kill();
    await all.ended();
    await nothingLeft();
  });

  const onLinux = process.platform === "linux" ? it : it.skip;
  onLinux("kill -9 of dev-all itself leaves no API and no worker behind", async () => {
    // Otherwise this dev-all finds a running database that it does not own, and leaves it running.
    await app.run("db-stop");
    const all = start("node", "scripts/dev-all.js");
    await allUp(all);
    const left = () => processesOf(app.root).filter((command) => !/postgres/.test(command));
    expect(left()).not.toEqual([]);
    all.kill("SIGKILL");
    await all.ended();
    // No process waits for the API and the worker any more: they notice the end of dev-all by themselves.
    const end = Date.now() + 120_000;
    while (left().length > 0 && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 50));
    await nothingLeft();
    const next = start("make", "dev-all");
    await next.shows("A make dev-all that was killed left it running. This one stops it at the end.");
    await allUp(next);
    next.interrupt();
    await next.ended();
    expect(clusterStatus({ dataDir: dataDir() }).running).toBe(false);
  });

  it("a running job is requeued without using an attempt and runs with a saved edit within 60 s", async () => {
    const all = start("make", "dev-all");
    await allUp(all);
    const id = await enqueue("slow");
    await all.shows("example task started");
    const seen = all.output.length;
    const saved = Date.now();
    const before = readFileSync(tasks(), "utf8");
    writeFileSync(tasks(), before.replaceAll("example task", "edited task").replace("4000", "10"));
    await all.shows("edited task finished", seen);
    // It takes about two seconds on an idle machine. This machine runs other tests at the same time.
    expect(Date.now() - saved).toBeLessThan(60_000);
    await all.shows("Finished exampleTask", seen);
    const job = await (await fetch(`${api}/queue/jobs/${id}`)).json();
    expect(job).toMatchObject({ status: "complete", attempts: 1 });
    writeFileSync(tasks(), before);
  });

  describe("with useServerLifespan", () => {
    const config = () => join(app.root, "backend/app/queue/config.ts");
    let original: string;
    beforeAll(() => {
      original = readFileSync(config(), "utf8");
      const changed = original.replace("  logger,\n", "  logger,\n  useServerLifespan: true,\n");
      expect(changed).not.toBe(original);
      writeFileSync(config(), changed);
    });
    afterAll(() => writeFileSync(config(), original));

    /** Process ids of the worker processes that the API has started. */
    const workers = () =>
      processesOf(app.root).filter((command) => command.includes("express/worker-program"));

    it("make dev-all starts no separate worker; a save restarts the API with its worker, and Ctrl-C finishes the job", async () => {
      const all = start("make", "dev-all");
      await all.shows("API listening");
      expect(all.output).toContain("Worker starting");
      expect(all.output).not.toContain("[worker]");
      if (process.platform === "linux") {
        expect(processesOf(app.root).join("\n")).not.toContain("app/worker.ts");
        expect(workers()).toHaveLength(1);
      }
      const id = await enqueue("slow");
      await all.shows("example task started");
      const seen = all.output.length;
      const before = readFileSync(tasks(), "utf8");
      const saved = Date.now();
      writeFileSync(tasks(), before.replaceAll("example task", "edited task").replace("4000", "3000"));
      await all.shows("edited task started", seen);
      expect(Date.now() - saved).toBeLessThan(60_000);
      expect(all.output.slice(seen)).not.toMatch(/is started again|is killed/);
      if (process.platform === "linux") expect(workers()).toHaveLength(1);
      all.interrupt();
      await all.ended();
      expect(all.output).toMatch(
        /edited task finished[\s\S]*Finished exampleTask[\s\S]*PostgreSQL \(embedded\) was stopped\. .*\n/,
      );
      expect(all.output).not.toMatch(/terminating connection|ECONNREFUSED|Error:|second signal/);
      writeFileSync(tasks(), before);
      await nothingLeft();
      expect(id).toEqual(expect.any(String));
    });

    onLinux("kill -9 of dev-all, and of the API, leaves no worker behind", async () => {
      const all = start("node", "scripts/dev-all.js");
      await all.shows("API listening");
      const seen = all.output.length;
      for (const pid of processIdsOf(app.root, "--import tsx app/server.ts")) process.kill(pid, "SIGKILL");
      await all.shows("the parent process has ended", seen);
      await all.shows("API listening", seen);
      expect(workers()).toHaveLength(1);
      all.kill("SIGKILL");
      await all.ended();
      const end = Date.now() + 120_000;
      const left = () => processesOf(app.root).filter((command) => !/postgres/.test(command));
      while (left().length > 0 && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 50));
      await nothingLeft();
      await app.run("db-stop");
    });

    it("make start alone runs everything, and SIGTERM to make ends everything", async () => {
      expect(await app.run("build")).toMatchObject({ code: 0 });
      await app.run("db-start");
      const all = start("make", "start");
      await all.shows("API listening");
      const id = await enqueue("compiled");
      await all.shows("Finished exampleTask");
      expect(await (await fetch(`${api}/queue/jobs/${id}`)).json()).toMatchObject({ status: "complete" });
      all.kill();
      await all.ended();
      expect(all.output).toContain("Worker stopped");
      expect(all.output).toContain("API closed");
      await nothingLeft();
      await app.run("db-stop");
    });
  });

  it("make dev-backend, dev-worker and dev-frontend run one part each", async () => {
    await app.run("db-start");
    const backend = start("make", "dev-backend");
    await backend.shows("API listening");
    const id = await enqueue("waits");
    const worker = start("make", "dev-worker");
    await worker.shows("Finished exampleTask");
    expect(await (await fetch(`${api}/queue/jobs/${id}`)).json()).toMatchObject({ status: "complete" });
    const frontend = start("make", "dev-frontend");
    await frontend.shows(`http://127.0.0.1:${ports.FRONTEND_PORT}/`);
    for (const part of [worker, frontend, backend]) {
      part.interrupt();
      await part.ended();
    }
    await nothingLeft();
    await app.run("db-stop");
  });

  it("make dev-backend and dev-worker say to run make db-start when the database does not answer", async () => {
    await app.run("db-stop");
    for (const target of ["dev-backend", "dev-worker"]) {
      const { code, stderr } = await app.run(target);
      expect(code).not.toBe(0);
      expect(stderr).toContain("The database does not answer. Start it: make db-start");
    }
  });

  it.each(["PORT", "FRONTEND_PORT"])(
    "make dev-all starts nothing when %s is taken, and names the process that holds it and the variable",
    async (variable) => {
      const holder = createServer().listen(ports[variable], "127.0.0.1");
      await once(holder, "listening");
      const { code, stdout, stderr } = await app.run("dev-all");
      holder.close();
      expect(code).not.toBe(0);
      const part = variable === "PORT" ? "API" : "front end";
      expect(stderr).toContain(`Port ${ports[variable]} of the ${part} is taken by `);
      expect(stderr).toContain(`(process ${process.pid}). Stop it, or change ${variable} in .env.`);
      expect(stdout).toBe("");
      expect(clusterStatus({ dataDir: dataDir() }).running).toBe(false);
    },
  );

  const hasIpv6 = Object.values(networkInterfaces()).some((list) =>
    list?.some(({ address }) => address === "::1"),
  );
  (hasIpv6 ? it : it.skip)("a port that is taken only on ::1 counts as taken", async () => {
    const holder = createServer().listen(ports.PORT, "::1");
    await once(holder, "listening");
    const { stderr } = await app.run("dev-all");
    holder.close();
    expect(stderr).toContain(`Port ${ports.PORT} of the API is taken by `);
  });

  it("make dev-all refuses an invalid port and two equal ports", async () => {
    expect((await app.run("dev-all", { PORT: "eighty" })).stderr).toContain("PORT=eighty is not a port.");
    const same = String(ports.PORT);
    expect((await app.run("dev-all", { FRONTEND_PORT: same })).stderr).toContain(
      `PORT and FRONTEND_PORT are both ${same}.`,
    );
  });

  it("make build, start and start-worker run the compiled application, which stops on SIGTERM to make", async () => {
    // Another test may have compiled it.
    rmSync(join(app.root, "backend/dist"), { recursive: true, force: true });
    const missing = await app.run("start");
    expect(missing.code).not.toBe(0);
    expect(missing.stderr).toContain("The application is not compiled yet. Run: make build");
    expect(await app.run("build")).toMatchObject({ code: 0 });
    await app.run("db-start");
    const backend = start("make", "start");
    const worker = start("make", "start-worker");
    await backend.shows("API listening");
    await worker.shows("Worker starting");
    await enqueue("compiled");
    await worker.shows("Finished exampleTask");
    // Only development has pretty log lines. Here they are JSON.
    expect(worker.output).toMatch(/^\{"level":30,.*"msg":"Finished exampleTask"\}$/m);
    for (const part of [backend, worker]) {
      part.kill();
      await part.ended();
    }
    expect(worker.output).toContain("Worker stopped");
    expect(backend.output).toContain("API closed");
    const same = start("npm", "run", "workers:run");
    await same.shows("Worker starting");
    same.interrupt();
    await same.ended();
    await nothingLeft();
    await app.run("db-stop");
  });

  it("make dev-all works without a front end, even if the folder of a previous front end still exists", async () => {
    const manifest = JSON.parse(readFileSync(join(app.root, "package.json"), "utf8"));
    writeFileSync(join(app.root, "package.json"), JSON.stringify({ ...manifest, workspaces: ["backend"] }));
    const all = start("make", "dev-all");
    await allUp(all);
    all.interrupt();
    await all.ended();
    expect(all.output).not.toContain("frontend");
    await nothingLeft();
  });
});
