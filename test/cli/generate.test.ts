import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import { emptyFolder, readTree, writeTree } from "../support/folders.js";
import { packedCli } from "../support/packed.js";
import { runCli } from "../support/run-cli.js";

const QUICK = ["--no-install", "--no-git"];
let cwd: string;

beforeAll(async () => {
  await packedCli();
}, 600_000);

beforeEach(() => {
  cwd = emptyFolder();
});

const nameOf = (folder: string) => JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).name;
const envOf = (folder: string) => parseEnv(readFileSync(join(folder, ".env"), "utf8"));

describe("the folder of a new project", () => {
  it("has the default name without a terminal, and the output lists each default with its flag", async () => {
    const run = await runCli(QUICK, { cwd });
    expect(run).toMatchObject({ code: 0, stderr: "" });
    expect(run.stdout).toContain("my-saq-app                        create-saq-app <folder>");
    for (const flag of [
      "--no-frontend",
      "--db embedded|docker|url",
      "--queue postgres|redis",
      "--port <number>",
    ])
      expect(run.stdout).toContain(flag);
    expect(run.stdout).not.toMatch(/--no-install|--no-git/);
    expect(readdirSync(cwd)).toEqual(["my-saq-app"]);
    expect(nameOf(join(cwd, "my-saq-app"))).toBe("my-saq-app");
  });

  it.each([
    ["o'brien app", "o'brien app", "obrien-app"],
    ["@acme/web", "web", "@acme/web"],
    ["new/deeper/app", "new/deeper/app", "app"],
    ['a "b" `c` $(d) {{e}} <f> \\ %h', 'a "b" `c` $(d) {{e}} <f> \\ %h', "a-b-c-d-e-f-h"],
  ])("is created from the argument %s, with a valid package name", async (typed, folder, name) => {
    const run = await runCli([typed, ...QUICK], { cwd });
    expect(run).toMatchObject({ code: 0, stderr: "" });
    expect(nameOf(join(cwd, folder))).toBe(name);
    expect(envOf(join(cwd, folder)).PORT).toBe("8000");
    expect(readdirSync(cwd)).toEqual([folder.split("/")[0]]);
  });

  it("can have special characters in its name: JSON files stay valid, Markdown files have no HTML escapes", async () => {
    const title = 'O\'Brien & "Sons" <b>';
    await runCli([title, ...QUICK], { cwd });
    for (const [path, { contents }] of readTree(join(cwd, title))) {
      if (path.endsWith("package.json") || path === "saq-app.json") JSON.parse(contents.toString());
      expect({ path, broken: /&#x|&amp;|&quot;/.test(contents.toString()) && path.endsWith(".md") }).toEqual({
        path,
        broken: false,
      });
    }
  });

  it("can be the current folder: its files stay, and the next steps have no cd command", async () => {
    writeTree(cwd, { LICENSE: "mine", ".git/HEAD": "ref: refs/heads/main\n", "docs/idea.md": "mine" });
    const run = await runCli([".", ...QUICK], { cwd });
    expect(run).toMatchObject({ code: 0, stderr: "" });
    expect(readFileSync(join(cwd, "LICENSE"), "utf8")).toBe("mine");
    expect(readFileSync(join(cwd, "docs/idea.md"), "utf8")).toBe("mine");
    expect(existsSync(join(cwd, "backend/app"))).toBe(true);
    expect(readdirSync(cwd).filter((name) => name.startsWith(".create-saq-app"))).toEqual([]);
    expect(run.stdout).not.toMatch(/^ {2}cd /m);
  });

  it("can be below a symbolic link", async () => {
    mkdirSync(join(cwd, "real"));
    symlinkSync(join(cwd, "real"), join(cwd, "link"));
    expect((await runCli(["link/app", ...QUICK], { cwd })).code).toBe(0);
    expect(nameOf(join(cwd, "real/app"))).toBe("app");
  });
});

describe("--force", () => {
  it("keeps each file that it does not replace, and lists each file that it replaces", async () => {
    writeTree(cwd, { "app/notes.txt": "mine", "app/Makefile": "mine", "app/backend/app/extra.ts": "mine" });
    const run = await runCli(["app", "--force", ...QUICK], { cwd });
    expect(run).toMatchObject({ code: 0, stderr: "" });
    expect(run.stdout.match(/^ {2}replaced .*$/gm)).toEqual(["  replaced Makefile"]);
    expect(readFileSync(join(cwd, "app/notes.txt"), "utf8")).toBe("mine");
    expect(readFileSync(join(cwd, "app/backend/app/extra.ts"), "utf8")).toBe("mine");
    expect(readFileSync(join(cwd, "app/Makefile"), "utf8")).not.toBe("mine");
  });

  it("keeps .env of a previous generation, and does not list files with equal contents", async () => {
    await runCli(["app", ...QUICK], { cwd });
    const password = envOf(join(cwd, "app")).DB_PASSWORD;
    const run = await runCli(["app", "--force", "--port", "9000", ...QUICK], { cwd });
    expect(run.code).toBe(0);
    expect(envOf(join(cwd, "app"))).toMatchObject({ DB_PASSWORD: password, PORT: "8000" });
    expect(run.stdout).toContain("  kept .env unchanged: settings from this command are not in it\n");
    expect(run.stdout.match(/^ {2}replaced .*$/gm)).toContain("  replaced saq-app.json");
    expect(run.stdout).not.toContain("replaced package.json");
  });
});

describe("--dry-run and --json", () => {
  it("--dry-run lists the files and writes none", async () => {
    writeTree(cwd, { "app/LICENSE": "mine" });
    const run = await runCli(["app", "--dry-run"], { cwd });
    expect(run).toMatchObject({ code: 0, stderr: "" });
    expect(run.stdout).toContain("  write    backend/app/queue/tasks.ts\n");
    expect(run.stdout).toContain("Nothing was written (--dry-run).");
    expect([...readTree(cwd).keys()]).toEqual(["app/LICENSE"]);
  });

  it("--dry-run refuses what the real run would refuse", async () => {
    writeTree(cwd, { "app/x": "" });
    expect((await runCli(["app", "--dry-run"], { cwd })).code).toBe(1);
  });

  it("--json prints one object that names every written file", async () => {
    const run = await runCli(["app", "--json", "--port", "9000", "--no-frontend", ...QUICK], { cwd });
    expect(run).toMatchObject({ code: 0, stderr: "" });
    const answer = JSON.parse(run.stdout);
    expect(answer).toMatchObject({
      status: "created",
      exitCode: 0,
      directory: join(cwd, "app"),
      name: "app",
      options: { frontend: false, db: "auto", queue: "postgres", port: 9000 },
      replaced: [],
      kept: [],
      install: { status: "skipped" },
      git: { status: "off" },
    });
    expect(answer.files).toEqual([...readTree(join(cwd, "app")).keys()]);
    expect(answer.addresses[0]).toEqual({ command: "http://localhost:9000", about: "API" });
  });

  it("--json --dry-run prints the status planned", async () => {
    const run = await runCli(["app", "--json", "--dry-run"], { cwd });
    expect(JSON.parse(run.stdout)).toMatchObject({ status: "planned", exitCode: 0 });
    expect(readdirSync(cwd)).toEqual([]);
  });
});

describe("the settings of a new project", () => {
  it("each project has its own password and id", async () => {
    await runCli(["one", ...QUICK], { cwd });
    await runCli(["two", ...QUICK], { cwd });
    const [one, two] = [envOf(join(cwd, "one")), envOf(join(cwd, "two"))];
    expect(one.DB_PASSWORD).toMatch(/^[0-9a-f]{32}$/);
    expect(one.PROJECT_ID).toMatch(/^[0-9a-f]{8}$/);
    expect(one.DB_PASSWORD).not.toBe(two.DB_PASSWORD);
    expect(one.PROJECT_ID).not.toBe(two.PROJECT_ID);
  });

  it.each([
    ["embedded", { DB_MODE: "embedded" }],
    ["docker", { DB_MODE: "docker" }],
    ["url", { DATABASE_URL: "" }],
    [
      "postgresql://me:p%23w@db.example.org:5433/shop?sslmode=require",
      { DATABASE_URL: "postgresql://me:p%23w@db.example.org:5433/shop?sslmode=require" },
    ],
  ])("--db %s sets the database in .env", async (db, settings) => {
    const run = await runCli(["app", "--db", db, ...QUICK], { cwd });
    expect(run.code).toBe(0);
    expect(envOf(join(cwd, "app"))).toMatchObject(settings);
    expect(run.stdout.includes("set DATABASE_URL")).toBe(db === "url");
    expect(readFileSync(join(cwd, "app/saq-app.json"), "utf8")).not.toContain("example.org");
  });

  it("the settings of the front end are in .env and .env.example only if there is a front end", async () => {
    const namesIn = (folder: string) =>
      [".env", ".env.example"].map((file) =>
        readFileSync(join(cwd, folder, file), "utf8").match(/\b(FRONTEND_PORT|API_URL)\b/g),
      );
    await runCli(["with", "--no-install", "--no-git"], { cwd });
    await runCli(["without", "--no-install", "--no-git", "--no-frontend"], { cwd });
    expect(namesIn("with")).toEqual([
      ["FRONTEND_PORT", "API_URL"],
      ["FRONTEND_PORT", "API_URL"],
    ]);
    expect(namesIn("without")).toEqual([null, null]);
  });

  it("--queue redis sets QUEUE_DSN in .env, and the next steps name Redis", async () => {
    const run = await runCli(["app", "--queue", "redis", "--no-frontend", ...QUICK], { cwd });
    expect(run.code).toBe(0);
    expect(envOf(join(cwd, "app"))).toMatchObject({ QUEUE_DSN: "redis://localhost:6379/0", DB_MODE: "" });
    expect(readFileSync(join(cwd, "app/README.md"), "utf8")).toContain("make redis-start");
  });

  it("--port is written to .env and to the printed addresses", async () => {
    const run = await runCli(["app", "--port", "9000", ...QUICK], { cwd });
    expect(envOf(join(cwd, "app")).PORT).toBe("9000");
    expect(run.stdout).toContain("http://localhost:9000/saq");
  });

  it("--no-frontend leaves out the folder and the workspace, and make dev-frontend prints the reason", async () => {
    await runCli(["app", "--no-frontend", ...QUICK], { cwd });
    const manifest = JSON.parse(readFileSync(join(cwd, "app/package.json"), "utf8"));
    expect(existsSync(join(cwd, "app/frontend"))).toBe(false);
    expect(manifest.workspaces).toEqual(["backend"]);
    const make = (...targets: string[]) =>
      spawnSync("make", targets, { cwd: join(cwd, "app"), encoding: "utf8" });
    expect(make("help").stdout).not.toContain("-frontend");
    expect(make("dev-frontend").stderr).toMatch(
      /^This application has no front end: it was generated with --no-frontend\.\n(make(\[\d+\])?: .*\n)?$/,
    );
  });
});
