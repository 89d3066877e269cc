import { spawnSync } from "node:child_process";
import { realpathSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "@jest/globals";
import { findEnclosingWorkspace } from "../../create-saq-app/src/workspace.js";
import { emptyFolder, writeTree } from "../support/folders.js";
import { bareEnvironment } from "../support/run-cli.js";

it.each<[workspaces: unknown, path: string, pattern: string | null]>([
  [["packages/*"], "packages/app", "packages/*"],
  [["./packages/*/"], "packages/app", "./packages/*/"],
  [{ packages: ["apps/**"] }, "apps/deep/app", "apps/**"],
  [["**"], "app", "**"],
  [["{a,b}/*"], "b/app", "{a,b}/*"],
  [["app"], "app", "app"],
  [["a?p"], "app", "a?p"],
  [["packages/*"], "packages/deep/app", null],
  [["packages/*"], "other/app", null],
  [["packages/*", "!packages/app"], "packages/app", null],
  [["packages"], "packages/app", null],
  [[], "app", null],
  [undefined, "app", null],
])(
  "with workspaces %j, the folder %s matches the pattern %s, and npm agrees",
  (workspaces, path, pattern) => {
    const root = realpathSync(emptyFolder());
    const manifest = JSON.stringify({ name: "inner", version: "1.0.0" });
    writeTree(root, {
      "package.json": JSON.stringify({ name: "outer", workspaces }),
      [`${path}/package.json`]: manifest,
    });
    const directory = join(root, path);
    expect(findEnclosingWorkspace(directory)).toEqual(pattern === null ? undefined : { root, pattern });
    const npm = spawnSync("npm", ["prefix"], { cwd: directory, env: bareEnvironment(), encoding: "utf8" });
    expect(npm.stdout.trim()).toBe(pattern === null ? directory : root);
  },
  120_000,
);
