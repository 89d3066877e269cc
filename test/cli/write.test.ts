import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "@jest/globals";
import type { PlannedFile } from "../../create-saq-app/src/plan.js";
import { checkTarget } from "../../create-saq-app/src/target.js";
import { writeProject } from "../../create-saq-app/src/write.js";
import { emptyFolder, readTree, writeTree } from "../support/folders.js";
import { isRoot, skippedAsRoot } from "../support/root.js";

const file = (path: string, contents: string, mode = 0o644): PlannedFile => ({
  path,
  contents: Buffer.from(contents),
  mode,
});
const PLAN = [
  file(".env", "secret", 0o600),
  file("a/b/c.ts", "c"),
  file("package.json", "{}"),
  file("run", "#!", 0o755),
];

let cwd: string;
let app: string;

beforeEach(() => {
  cwd = emptyFolder();
  app = join(cwd, "app");
});

describe("the writer of a project", () => {
  it("creates the folder and its parents, and gives each file its mode regardless of the umask", () => {
    const deep = join(cwd, "x/y/app");
    const umask = process.umask(0o077);
    try {
      writeProject(deep, PLAN, checkTarget(deep, PLAN, false));
    } finally {
      process.umask(umask);
    }
    expect([...readTree(deep)].map(([path, { mode }]) => [path, mode])).toEqual(
      PLAN.map(({ path, mode }) => [path, mode]),
    );
    expect(readdirSync(join(cwd, "x/y"))).toEqual(["app"]);
  });

  it("keeps an existing empty folder, so that a shell can stay in it", () => {
    mkdirSync(app);
    const before = statSync(app).ino;
    writeProject(app, PLAN, checkTarget(app, PLAN, false));
    expect(statSync(app).ino).toBe(before);
    expect([...readTree(app).keys()]).toEqual(PLAN.map(({ path }) => path));
  });

  it("keeps an existing .env, which contains the password", () => {
    writeTree(app, { ".env": "old password", "package.json": "old" });
    const target = checkTarget(app, PLAN, true);
    expect(target).toEqual({ exists: true, overwritten: ["package.json"], kept: [".env"] });
    writeProject(app, PLAN, target);
    expect(readFileSync(join(app, ".env"), "utf8")).toBe("old password");
    expect(readFileSync(join(app, "package.json"), "utf8")).toBe("{}");
  });
});

describe("a write that fails", () => {
  // No user, not even root, can write a path below a file.
  const BROKEN = [...PLAN, file("package.json/impossible", "x")];

  it("removes the new folder and the parents that it created", () => {
    const deep = join(cwd, "x/y/app");
    expect(() => writeProject(deep, BROKEN, { exists: false, overwritten: [], kept: [] })).toThrow();
    expect(readdirSync(cwd)).toEqual([]);
  });

  it("restores an existing folder", () => {
    const plan = [...PLAN, file("zz/last.ts", "x")];
    writeTree(app, { "package.json": "old", "notes.txt": "mine", "a/keep.ts": "mine" });
    const target = checkTarget(app, plan, true);
    writeTree(app, { zz: "a file, made after the check" });
    const before = readTree(app);
    expect(() => writeProject(app, plan, target)).toThrow(/a parent of it is a file/);
    expect(readTree(app)).toEqual(before);
    expect(existsSync(join(app, "a/b"))).toBe(false);
    expect(readdirSync(app).sort()).toEqual(["a", "notes.txt", "package.json", "zz"]);
  });

  it("adds nothing to a target that another program filled after the check", () => {
    const target = checkTarget(app, PLAN, false);
    writeTree(app, { "late.txt": "mine" });
    expect(() => writeProject(app, PLAN, target)).toThrow(/another program wrote into it in the meantime/);
    expect([...readTree(cwd).keys()]).toEqual(["app/late.txt"]);
  });
});

describe("the check of the target", () => {
  it.each([
    ".git/config",
    "LICENSE",
    "docs/x.md",
    ".github/x.yml",
    ".vscode/settings.json",
    ".idea/x",
    ".DS_Store",
  ])("treats a folder with only %s as empty", (path) => {
    writeTree(app, { [path]: "" });
    expect(checkTarget(app, PLAN, false).exists).toBe(true);
  });

  it("refuses a folder with a README.md that would be replaced", () => {
    writeTree(app, { "README.md": "mine" });
    expect(() => checkTarget(app, [file("README.md", "x")], false)).toThrow(/Conflicts:\n {2}README.md\n/);
  });

  it("does not list a file with equal contents as replaced", () => {
    writeTree(app, { "package.json": "{}" });
    expect(checkTarget(app, PLAN, true).overwritten).toEqual([]);
  });

  it("refuses a symbolic link in place of a file", () => {
    writeTree(cwd, { "real.json": "mine" });
    mkdirSync(app);
    symlinkSync(join(cwd, "real.json"), join(app, "package.json"));
    expect(() => checkTarget(app, PLAN, true)).toThrow(
      /package.json must be a file, but it is a symbolic link/,
    );
  });

  if (isRoot) skippedAsRoot("a folder that may not be looked into");
  (isRoot ? it.skip : it)("refuses a folder that it has no permission to read", () => {
    mkdirSync(app);
    chmodSync(app, 0o000);
    expect(() => checkTarget(join(app, "sub"), PLAN, false)).toThrow(/permission denied/);
    chmodSync(app, 0o755);
  });
});
