// A generated application outside the repository, from its first commit to production.
import { existsSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import { freePort } from "../support/free-port.js";
import { InstalledApp, newcomersEnvironment } from "../support/installed-app.js";
import { portAnswers } from "../support/left-behind.js";
import type { Program } from "../support/program.js";

jest.setTimeout(600_000);

let app: InstalledApp;

beforeAll(async () => {
  app = await InstalledApp.copy();
}, 600_000);

afterAll(() => app?.remove(), 240_000);

describe("a newly generated application", () => {
  it("has one commit, with the lock file and without .env and node_modules", async () => {
    expect((await app.run(["git", "log", "--format=%an %s"])).trim().split("\n")).toHaveLength(1);
    const committed = (await app.run(["git", "ls-tree", "-r", "--name-only", "HEAD"])).split("\n");
    expect(committed).toEqual(
      expect.arrayContaining(["package-lock.json", ".gitignore", ".env.example", "README.md"]),
    );
    expect(committed.filter((path) => /(^|\/)(\.env|node_modules|dist|\.data)(\/|$)/.test(path))).toEqual([]);
    expect(await app.run(["git", "status", "--porcelain"])).toBe("");
  });

  it("has a .env file that only its owner can read or write", () => {
    expect(statSync(join(app.root, ".env")).mode & 0o777).toBe(0o600);
  });

  it("passes make check", async () => {
    expect(await app.run(["make", "check"])).not.toMatch(/error|warning/i);
  });

  it("is not changed by make fix", async () => {
    await app.run(["make", "fix"]);
    expect(await app.run(["git", "status", "--porcelain"])).toBe("");
  });

  it("passes make test, which exits by itself and leaves no process and no open port", async () => {
    const output = await app.run(["make", "test"], { withinMs: 240_000 });
    expect(output).toMatch(/Tests: +\d+ passed, \d+ total/);
    expect(output).not.toContain("did not exit");
    expect(await app.leftBehind()).toEqual([]);
  });

  it.each([
    ["npm test -w backend -- test/health.test.ts", /Test Suites: 1 passed, 1 total/],
    ["npm test -w backend -- test/queue-routes.test.ts", /Test Suites: 1 passed, 1 total/],
    ['npm test -w backend -- -t "delayed"', /Tests: +\d+ skipped, [1-9]\d* passed/],
  ])("runs a part of the tests: %s", async (command, report) => {
    expect(await app.shell(command)).toMatch(report);
  });

  it("lists its targets when make runs without a target", async () => {
    const listed = await app.run(["make"]);
    const targets = [...app.read("Makefile").matchAll(/^([a-z-]+):.*##/gm)].map(([, name]) => String(name));
    expect(targets.length).toBeGreaterThan(15);
    for (const target of targets) expect(listed).toMatch(new RegExp(`\\b${target}\\b`));
  });
});

describe("the database", () => {
  it("keeps running after make db-start, and stops with make db-stop", async () => {
    expect(await app.run(["make", "db-start"])).toContain(`is ready on 127.0.0.1:${app.databasePort}`);
    expect(await portAnswers(app.databasePort)).toBe(true);
    expect(await app.run(["make", "db-stop"])).toContain("was stopped. Its data is kept.");
    expect(await app.leftBehind()).toEqual([]);
  });

  it("is emptied by make db-reset", async () => {
    expect(await app.run(["make", "db-reset"])).toContain("was deleted.");
    expect(await portAnswers(app.databasePort)).toBe(true);
  });
});

describe("an application that is installed and started part by part", () => {
  let backend: Program;
  let waiting: string;

  it("make install-backend installs the packages that API and worker need", async () => {
    await app.run(["make", "install-backend"], { withinMs: 240_000 });
    expect(existsSync(join(app.root, "node_modules/express/package.json"))).toBe(true);
  });

  it("make install installs a package that is missing", async () => {
    rmSync(join(app.root, "node_modules/vite"), { recursive: true });
    await app.run(["make", "install"], { withinMs: 240_000 });
    expect(existsSync(join(app.root, "node_modules/vite/package.json"))).toBe(true);
  });

  it("make dev-backend runs the API without a worker, so a job stays queued", async () => {
    backend = app.start(["make", "dev-backend"]);
    waiting = await backend.until("take a job", 120_000, () => app.enqueueExample("waits"));
    expect((await app.job(waiting))?.status).toBe("queued");
    expect(await (await fetch(`${app.url}/health`)).json()).toMatchObject({ status: "ok", workers: 0 });
  });

  it("make dev-worker runs the queued job and logs its start and end", async () => {
    const worker = app.start(["make", "dev-worker"]);
    expect(await app.complete(waiting, worker)).toMatchObject({ attempts: 1, result: { message: "waits" } });
    await worker.prints(/Processing exampleTask[\s\S]*Finished exampleTask/, 120_000);
    await endByCtrlC(worker);
    await endByCtrlC(backend);
    expect(await portAnswers(app.port)).toBe(false);
  });

  it("make install-frontend and make dev-frontend install and run the front end", async () => {
    await app.run(["make", "install-frontend"], { withinMs: 240_000 });
    const frontend = app.start(["make", "dev-frontend"]);
    const page = await frontend.until("serve a page", 120_000, async () =>
      fetch(`http://localhost:${app.frontendPort}/`)
        .then((response) => response.text())
        .catch(() => undefined),
    );
    expect(page).toContain('<div id="root">');
    await endByCtrlC(frontend);
    expect(await portAnswers(app.frontendPort)).toBe(false);
  });

  async function endByCtrlC(program: Program): Promise<void> {
    program.signal("SIGINT");
    await program.ended(120_000);
    expect(program.group()).toEqual([]);
  }
});

describe("an application in production", () => {
  afterEach(() => app.killPrograms());

  it("make start fails before a build and says to run make build", async () => {
    expect(await app.run(["make", "start"], { code: 2 })).toContain(
      "The application is not compiled yet. Run: make build",
    );
  });

  it("runs compiled JavaScript with make build, make start and make start-worker", async () => {
    await app.run(["make", "build"], { withinMs: 240_000 });
    const api = app.start(["make", "start"]);
    const worker = app.start(["make", "start-worker"]);
    await api.until("see one worker", 120_000, async () => {
      const response = await fetch(`${app.url}/health`).catch(() => undefined);
      return response?.status === 200 && ((await response.json()) as { workers: number }).workers === 1;
    });
    const id = await api.until("take a job", 120_000, () => app.enqueueExample("compiled"));
    expect((await app.complete(id, worker)).result).toEqual({ status: "success", message: "compiled" });

    for (const path of ["/saq", "/saq/api/queues"]) {
      expect((await fetch(`${app.url}${path}`)).status).toBe(404);
    }
    for (const program of [api, worker]) {
      const lines = program.output.split("\n").filter((line) => line !== "");
      for (const line of lines) expect(JSON.parse(line)).toMatchObject({ msg: expect.any(String) });
    }
    for (const program of [worker, api]) await endsWell(program);
  });

  it("protects /saq with AUTH_USER and AUTH_PASSWORD", async () => {
    const env = { ...newcomersEnvironment(), AUTH_USER: "operator", AUTH_PASSWORD: "secret" };
    const api = app.start([process.execPath, "scripts/start.js", "server"], { env });
    const open = (authorization: string) =>
      fetch(`${app.url}/saq/`, { headers: { authorization } })
        .then(({ status }) => status)
        .catch(() => undefined);
    const basic = (text: string) => `Basic ${Buffer.from(text).toString("base64")}`;
    expect(await api.until("answer", 120_000, () => open(basic("operator:secret")))).toBe(200);
    expect(await open(basic("operator:wrong"))).toBe(401);
    expect(await endsWell(api)).toBe(0);
  });

  it("has a command line for its queue that runs compiled code or the source", async () => {
    expect(await app.shell("npm run saq -- --help")).toContain("workers status");
    const workers = app.start(["sh", "-c", "exec npm run workers:run -- --workers 2 --queues default"]);
    const status = (command: string) => app.shell(`${command} || true`);
    await workers.until("have two live workers", 120_000, async () =>
      /default +2 /.test(await status("npm run workers:status")),
    );
    expect(workers.output).toContain("Starting SAQ Workers");
    expect(await app.shell("npm run saq -- workers status")).toMatch(/default +2 /);
    expect(await app.shell("npm run saq -- check")).toContain("Found 2 active workers for queue default");
    expect(await app.shell("npm run saq -- tune")).toContain('"public"."saq_jobs": nothing to do.');
    expect(await app.shell("npm run saq -- jobs --status failed")).toContain("There are no such jobs.");
    expect(await app.shell("npm run saq -- retry --status failed")).toContain("Nothing can be retried.");
    const { jobs } = JSON.parse(await app.shell("npm run --silent saq -- jobs --json")) as { jobs: object[] };
    expect(jobs).toContainEqual(expect.objectContaining({ task: "exampleTask", state: "complete" }));
    await endsWell(workers);
    expect(workers.group()).toEqual([]);
    expect(await status("npm run saq -- check")).toContain("No active workers found for queue default");
  });

  it("a worker that a supervisor starts without npm exits with 0 on SIGTERM", async () => {
    const worker = app.start([process.execPath, "scripts/start.js", "worker"]);
    await worker.prints(/Worker starting: default/, 120_000);
    expect(await endsWell(worker)).toBe(0);
    expect(worker.output).toContain("Worker stopped");
  });

  it("names a port that is taken, without a stack trace", async () => {
    const port = await freePort();
    const env = { ...newcomersEnvironment(), PORT: String(port) };
    const first = app.start([process.execPath, "scripts/start.js", "server"], { env });
    await first.prints(/API listening/, 120_000);
    const second = await app.run([process.execPath, "scripts/start.js", "server"], { env, code: 1 });
    expect(second).toContain(`${port}`);
    expect(second).not.toMatch(/ {4}at /);
    await endsWell(first);
  });

  it("leaves no process and no open port after make db-stop, and .gitignore contains .data", async () => {
    await app.run(["make", "db-stop"]);
    expect(await app.leftBehind()).toEqual([]);
    expect(readFileSync(join(app.root, ".gitignore"), "utf8")).toContain(".data");
  });

  /** Sends SIGTERM to the whole group, as a supervisor does. Returns the exit code. */
  async function endsWell(program: Program): Promise<number | null> {
    program.signal("SIGTERM");
    const code = await program.ended(120_000);
    expect(program.group()).toEqual([]);
    return code;
  }
});
