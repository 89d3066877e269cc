import { chmodSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import { emptyFolder, readTree, writeTree } from "../support/folders.js";
import { packedCli } from "../support/packed.js";
import { isRoot, skippedAsRoot } from "../support/root.js";
import { bareEnvironment, runCli } from "../support/run-cli.js";

const QUICK = ["--no-install", "--no-git"];
let cwd: string;

beforeAll(async () => {
  await packedCli();
}, 600_000);

beforeEach(() => {
  cwd = emptyFolder();
});

describe("wrong usage (exit code 2, nothing is written)", () => {
  it.each([
    [["--no-instal"], 'There is no flag "--no-instal". Did you mean --no-install?\n'],
    [["one", "two"], /^Only one folder can be given[\s\S]*npm create saq-app@latest one -- --db docker\n$/],
    [["app", "--db", "mysql"], /^--db is "mysql". Allowed: auto, embedded, docker, url/],
    [["app", "--port", "70000"], '--port is "70000". Allowed: a whole number from 1 to 65535.\n'],
    [["app", "--port"], "--port needs a value, for example --port 8000.\n"],
    [["../app"], /^The folder "\.\.\/app" contains "\.\."/],
    [["!!!"], /^No package name can be made from "!!!"/],
    [["tab\there"], /^The folder "tab\\there" contains the control character U\+0009/],
  ])("the arguments %j are refused", async (args, message) => {
    const run = await runCli(args, { cwd });
    expect(run).toMatchObject({ code: 2, stdout: "" });
    if (typeof message === "string") expect(run.stderr).toBe(message);
    else expect(run.stderr).toMatch(message);
    expect(readdirSync(cwd)).toEqual([]);
  });

  it("a flag that npm did not pass on is refused", async () => {
    const env = { ...bareEnvironment(), npm_lifecycle_event: "npx", npm_config_install: "" };
    const run = await runCli(["my-app"], { cwd, env });
    expect(run.code).toBe(2);
    expect(run.stderr).toContain("npm create saq-app@latest my-app -- --no-install");
    expect(readdirSync(cwd)).toEqual([]);
  });
});

describe("a target that cannot be used (exit code 1, nothing is changed)", () => {
  async function refused(args: string[]): Promise<string> {
    const before = readTree(cwd);
    const run = await runCli([...args, ...QUICK], { cwd });
    expect(run.code).toBe(1);
    expect(readTree(cwd)).toEqual(before);
    return run.stderr;
  }

  it("a folder that is not empty is refused, and the conflicting files are listed", async () => {
    writeTree(cwd, { "app/notes.txt": "mine", "app/README.md": "mine", "app/LICENSE": "mine" });
    const message = await refused(["app"]);
    expect(message).toContain("app is not empty. Conflicts:\n  README.md\n  notes.txt\n");
    expect(message).toContain("--force");
    expect(message).not.toContain("LICENSE");
  });

  it("only the first 12 conflicting files are listed, with the number of the others", async () => {
    writeTree(cwd, Object.fromEntries(Array.from({ length: 20 }, (_, n) => [`app/file-${n + 10}`, ""])));
    expect(await refused(["app"])).toMatch(/ {2}file-21\n {2}and 8 more\n/);
  });

  it.each(["#", "?", ":"])("a path with %s is refused: npm or Vite cannot use it", async (character) => {
    expect(await refused([`a${character}b/app`])).toContain(`a${character}b/app contains "${character}"`);
  });

  it("a folder that an npm workspace includes is refused, and a folder beside it is accepted", async () => {
    writeTree(cwd, { "package.json": '{ "workspaces": ["packages/*"] }' });
    expect(await refused(["packages/app"])).toContain(
      `packages/app would be part of the npm workspace in ${cwd} (its package.json has "packages/*").`,
    );
    const beside = await runCli(["app", ...QUICK], { cwd });
    expect(beside).toMatchObject({ code: 0, stderr: "" });
  });

  it("a file is refused", async () => {
    writeTree(cwd, { app: "a file" });
    expect(await refused(["app"])).toBe(`${join(cwd, "app")} is a file. Give another name.\n`);
  });

  it("a path is refused when one of its parent folders is a file", async () => {
    writeTree(cwd, { parent: "a file" });
    expect(await refused(["parent/deep/app"])).toBe(
      `${join(cwd, "parent")} is a file, so ${join(cwd, "parent/deep/app")} cannot be created.\n`,
    );
  });

  it.each([
    ["a folder", "real"],
    ["a path that does not exist", "gone"],
  ])("a symbolic link to %s is refused, even with --force", async (_, points) => {
    mkdirSync(join(cwd, "real"));
    symlinkSync(join(cwd, points), join(cwd, "link"));
    const run = await runCli(["link", "--force", ...QUICK], { cwd });
    expect(run.code).toBe(1);
    expect(run.stderr).toContain("is a symbolic link");
    expect(readdirSync(join(cwd, "real"))).toEqual([]);
  });

  it("--force does not follow a symbolic link out of the folder", async () => {
    mkdirSync(join(cwd, "elsewhere"));
    mkdirSync(join(cwd, "app"));
    symlinkSync(join(cwd, "elsewhere"), join(cwd, "app/backend"));
    const run = await runCli(["app", "--force", ...QUICK], { cwd });
    expect(run.code).toBe(1);
    expect(run.stderr).toContain("app/backend must be a folder, but it is a symbolic link");
    expect(readdirSync(join(cwd, "app"))).toEqual(["backend"]);
    expect(readdirSync(join(cwd, "elsewhere"))).toEqual([]);
  });

  it("--force does not replace a folder with a file", async () => {
    writeTree(cwd, { "app/package.json/x": "" });
    expect(await refused(["app", "--force"])).toContain(
      "app/package.json must be a file, but it is a folder",
    );
  });

  if (isRoot) skippedAsRoot("a parent folder without permission to write");
  (isRoot ? it.skip : it)("a parent folder without write permission is refused", async () => {
    chmodSync(cwd, 0o555);
    const message = await refused(["app"]);
    chmodSync(cwd, 0o755);
    expect(message).toContain("cannot be written: permission denied (EACCES). All changes were undone.");
  });

  it("--json prints the refusal as one object", async () => {
    writeTree(cwd, { app: "a file" });
    const run = await runCli(["app", "--json"], { cwd });
    expect(run).toMatchObject({ code: 1, stderr: "" });
    expect(JSON.parse(run.stdout)).toEqual({
      status: "refused",
      exitCode: 1,
      message: `${join(cwd, "app")} is a file. Give another name.`,
    });
  });
});

describe("an old version of Node", () => {
  it.each(["10.24.1", "18.20.8", "20.18.3"])(
    "%s is refused with an error of one sentence",
    async (version) => {
      const shim = join(emptyFolder(), "old-node.cjs");
      writeFileSync(
        shim,
        `Object.defineProperty(process.versions, "node", { value: ${JSON.stringify(version)} });`,
      );
      const env = { ...bareEnvironment(), NODE_OPTIONS: `--require ${shim}` };
      expect(await runCli(["my-app"], { cwd, env })).toMatchObject({
        code: 1,
        stdout: "",
        stderr: `create-saq-app needs Node 20.19 or newer, and this is Node ${version}.\n`,
      });
      expect(readdirSync(cwd)).toEqual([]);
    },
  );

  it("is detected before any module is imported", async () => {
    const { root } = await packedCli();
    const source = readFileSync(join(root, "create-saq-app/bin.js"), "utf8");
    expect(source).not.toMatch(/^import\s/m);
    expect(source.indexOf("process.versions")).toBeLessThan(source.indexOf('import("./dist/cli.js")'));
  });
});

describe("--help and --version", () => {
  it("--help names every flag", async () => {
    const run = await runCli(["--help"], { cwd });
    expect(run).toMatchObject({ code: 0, stderr: "" });
    for (const flag of [
      "-y, --yes",
      "--install",
      "--no-install",
      "--git",
      "--no-git",
      "--frontend",
      "--no-frontend",
    ])
      expect(run.stdout).toContain(flag);
    for (const flag of ["--db", "--port", "--force", "--dry-run", "--json", "-h, --help", "-v, --version"])
      expect(run.stdout).toContain(flag);
    expect(Math.max(...run.stdout.split("\n").map((line) => line.length))).toBeLessThanOrEqual(100);
  });

  it("--version prints the version of the package", async () => {
    const { root } = await packedCli();
    const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
    expect(await runCli(["--version"], { cwd })).toMatchObject({ code: 0, stdout: `${version}\n` });
  });
});
