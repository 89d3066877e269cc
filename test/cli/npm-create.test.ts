import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import { emptyFolder } from "../support/folders.js";
import { packedCli } from "../support/packed.js";
import { serveRegistry } from "../support/registry.js";
import { bareEnvironment, type CliRun } from "../support/run-cli.js";

let registry: Awaited<ReturnType<typeof serveRegistry>>;
let cwd: string;

beforeAll(async () => {
  const { root, tarball } = await packedCli();
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  registry = await serveRegistry([{ manifest, tarball }]);
}, 600_000);

afterAll(() => registry.close());

beforeEach(() => {
  cwd = emptyFolder();
});

/** Runs the command as users type it, with the real npm. */
function npmCreate(...args: string[]): Promise<CliRun> {
  const env = {
    ...bareEnvironment(),
    npm_config_registry: registry.url,
    npm_config_update_notifier: "false",
  };
  return new Promise((resolve, reject) => {
    const child = spawn("npm", ["create", "-y", "saq-app@latest", ...args], { cwd, env });
    const run = { stdout: "", stderr: "" };
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      run.stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      run.stderr += text;
    });
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal, ...run }));
  });
}

describe("npm create saq-app@latest", () => {
  it("generates a project with the flags after --", async () => {
    const run = await npmCreate("my-app", "--", "--no-install", "--no-git", "--port", "9000");
    expect(run.code).toBe(0);
    expect(run.stdout).toContain("http://localhost:9000/saq");
    expect(readdirSync(cwd)).toEqual(["my-app"]);
  }, 600_000);

  it.each([
    [["my-app", "--no-install"], "npm did not pass on --no-install."],
    [["my-app", "--no-frontend", "--port=9"], "npm did not pass on --port 9, --no-frontend."],
    [["my-app", "--no-git"], "npm did not pass on --no-git."],
    [["my-app", "--db=docker"], "npm did not pass on --db docker."],
    [["my-app", "--db", "docker"], 'there is a second argument: "docker"'],
  ])(
    "refuses %j, because npm does not pass on flags before --",
    async (args, message) => {
      const run = await npmCreate(...args);
      expect(run.code).toBe(2);
      expect(run.stderr).toContain(message);
      expect(readdirSync(cwd)).toEqual([]);
    },
    120_000,
  );
});
