import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import { emptyFolder, writeTree } from "../support/folders.js";
import { packedCli } from "../support/packed.js";
import { bareEnvironment, runCli, withGitIdentity } from "../support/run-cli.js";

// Replacements for npm: the tests check what the command does when npm works, fails, hangs or is missing.
const WORKING_NPM = `#!/bin/sh
echo "args: $*"
echo '{"lockfileVersion":3}' > package-lock.json
mkdir -p node_modules/some && echo x > node_modules/some/index.js
echo "added 1 package"
`;
const FAILING_NPM = `#!/bin/sh
echo "npm error code E404" >&2
exit 7
`;
// This npm ignores Ctrl-C, and so does its child process. Only SIGKILL to the whole group ends both.
const STUBBORN_NPM = `#!/bin/sh
trap '' INT
sleep 300 &
echo "pids $$ $!"
while true; do sleep 1; done
`;

let cwd: string;

beforeAll(async () => {
  await packedCli();
}, 600_000);

beforeEach(() => {
  cwd = emptyFolder();
});

describe("npm install", () => {
  it("runs in the project, and its output is shown", async () => {
    const run = await runCli(["app", "--no-git"], { cwd, env: bareEnvironment({ npm: WORKING_NPM }) });
    expect(run).toMatchObject({ code: 0, stderr: "" });
    expect(run.stdout).toContain("Installing dependencies (npm install) ...\nargs: install --include=dev");
    expect(existsSync(join(cwd, "app/package-lock.json"))).toBe(true);
    expect(run.stdout).toMatch(/Next:\n {2}cd app\n {2}make dev-all/);
  });

  it("a failure keeps the project, gives exit code 1 and shows the command to retry", async () => {
    const env = withGitIdentity(bareEnvironment({ npm: FAILING_NPM }));
    const run = await runCli(["app"], { cwd, env });
    expect(run.code).toBe(1);
    expect(run.stderr).toBe(
      "npm error code E404\nnpm install failed: exit code 7. The project is kept. Run npm install again.\n",
    );
    expect(run.stdout).toMatch(/Next:\n {2}cd app\n {2}npm install +# it did not finish\n {2}make dev-all/);
    expect(run.stdout).toContain("No git commit: the lock file is missing, because npm install failed.");
    expect(existsSync(join(cwd, "app/package.json"))).toBe(true);
    expect(existsSync(join(cwd, "app/.git"))).toBe(false);
  });

  it("a failure with --json prints npm's output on standard error and one object on standard output", async () => {
    const run = await runCli(["app", "--json"], { cwd, env: bareEnvironment({ npm: FAILING_NPM }) });
    expect(run).toMatchObject({ code: 1, stderr: "npm error code E404\n" });
    expect(JSON.parse(run.stdout)).toMatchObject({
      status: "created",
      exitCode: 1,
      install: { status: "failed", reason: "exit code 7" },
    });
  });

  it("a success with --json prints only the object on standard output", async () => {
    const run = await runCli(["app", "--json"], { cwd, env: bareEnvironment({ npm: WORKING_NPM }) });
    expect(JSON.parse(run.stdout)).toMatchObject({ exitCode: 0, install: { status: "done" } });
    expect(run.stderr).toContain("added 1 package");
  });

  it("fails with the reason when npm is not on the PATH", async () => {
    const bin = emptyFolder();
    const env = { ...bareEnvironment(), PATH: bin };
    const run = await runCli(["app"], { cwd, env });
    expect(run.code).toBe(1);
    expect(run.stderr).toContain("npm install failed: npm was not found on the PATH.");
  });

  it.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)(
    "%s while it runs gives exit code %i, keeps the project and leaves no npm process",
    async (signal, code) => {
      let sent = false;
      const run = await runCli(["app"], {
        cwd,
        env: bareEnvironment({ npm: STUBBORN_NPM }),
        onOutput: (stdout, kill) => {
          if (sent || !stdout.includes("pids ")) return;
          sent = true;
          kill(signal);
          // One Ctrl-C often sends its signal more than once.
          kill(signal);
        },
      });
      expect(run).toMatchObject({ code, signal: null });
      expect(run.stderr).toBe("Stopped. The project is kept in app. To continue, run npm install there.\n");
      expect(existsSync(join(cwd, "app/package.json"))).toBe(true);
      expect(existsSync(join(cwd, "app/.git"))).toBe(false);
      const pids = /pids (\d+) (\d+)/.exec(run.stdout)?.slice(1).map(Number) ?? [];
      expect(pids).toHaveLength(2);
      expect(pids.filter(isRunning)).toEqual([]);
    },
    120_000,
  );
});

/** A killed process stays in the process table until init collects it. Until then it is a zombie and does not run. */
function isRunning(pid: number): boolean {
  const state = spawnSync("ps", ["-o", "stat=", "-p", String(pid)], { encoding: "utf8" }).stdout.trim();
  return state !== "" && !state.startsWith("Z");
}

describe("the git step", () => {
  const git = (folder: string, env: NodeJS.ProcessEnv, ...args: string[]) =>
    spawnSync("git", args, { cwd: folder, env, encoding: "utf8" }).stdout;

  it("makes the first commit with the lock file and without secrets", async () => {
    const env = withGitIdentity(bareEnvironment({ npm: WORKING_NPM }));
    const run = await runCli(["app"], { cwd, env });
    expect(run.code).toBe(0);
    expect(run.stdout).toContain("Created a git repository and its first commit.\n");
    const app = join(cwd, "app");
    const files = git(app, env, "ls-files").split("\n");
    expect(files).toContain("package-lock.json");
    expect(files).toContain(".env.example");
    expect(files).toContain(".gitignore");
    expect(files).not.toContain(".env");
    expect(files.filter((path) => path.includes("node_modules"))).toEqual([]);
    expect(git(app, env, "status", "--porcelain")).toBe("");
    expect(git(app, env, "log", "--format=%an %s")).toMatch(/^Test Person Create app with create-saq-app \d/);
    expect(git(app, env, "branch", "--show-current")).toBe("main\n");
  });

  it("uses the default branch of the user's git configuration", async () => {
    const env = withGitIdentity(bareEnvironment());
    writeTree(env.HOME ?? "", { ".gitconfig": "[init]\n\tdefaultBranch = trunk\n" });
    await runCli(["app", "--no-install"], { cwd, env });
    expect(git(join(cwd, "app"), env, "branch", "--show-current")).toBe("trunk\n");
  });

  it.each([
    [
      "git does not know the user",
      (env: NodeJS.ProcessEnv) => env,
      "No git commit: git has no name and email (set git config --global user.name and user.email).",
    ],
    [
      "git is not installed",
      (env: NodeJS.ProcessEnv) => ({ ...env, PATH: emptyFolder() }),
      "No git commit: git is not installed.",
    ],
  ])("skips the commit when %s, and prints the reason in one line", async (_, change, line) => {
    const run = await runCli(["app", "--no-install"], { cwd, env: change(bareEnvironment()) });
    expect(run).toMatchObject({ code: 0, stderr: "" });
    expect(run.stdout).toContain(`${line}\n`);
    expect(existsSync(join(cwd, "app/.git"))).toBe(false);
  });

  it("makes no repository inside another one, and ignores a GIT_DIR that points to another repository", async () => {
    const env = withGitIdentity(bareEnvironment());
    git(cwd, env, "init", "--quiet");
    const inside = await runCli(["app", "--no-install"], { cwd, env });
    expect(inside.stdout).toContain("No git commit: the folder is already in a git repository.\n");
    expect(existsSync(join(cwd, "app/.git"))).toBe(false);

    const outside = emptyFolder();
    const hooked = { ...env, GIT_DIR: join(cwd, ".git") };
    expect((await runCli(["app", "--no-install"], { cwd: outside, env: hooked })).code).toBe(0);
    expect(statSync(join(outside, "app/.git")).isDirectory()).toBe(true);
    expect(git(cwd, env, "log", "--oneline", "--all")).toBe("");
  });

  it("leaves no repository when a hook refuses the commit", async () => {
    const env = withGitIdentity(bareEnvironment());
    const hooks = join(env.HOME ?? "", "hooks");
    mkdirSync(hooks);
    writeTree(env.HOME ?? "", { ".gitconfig": `[core]\n\thooksPath = ${hooks}\n` });
    writeTree(hooks, { "pre-commit": "#!/bin/sh\necho 'not today' >&2\nexit 1\n" });
    spawnSync("chmod", ["+x", join(hooks, "pre-commit")]);
    const run = await runCli(["app", "--no-install"], { cwd, env });
    expect(run).toMatchObject({ code: 0, stderr: "" });
    expect(run.stdout).toContain("No git commit: git commit failed: not today.\n");
    expect(existsSync(join(cwd, "app/.git"))).toBe(false);
    expect(readFileSync(join(cwd, "app/package.json"), "utf8")).toContain('"name": "app"');
  });
});
