import { rmSync } from "node:fs";
import { join } from "node:path";
import { type ChildResult, runChild } from "../child.js";

export type GitResult = { status: "committed" } | { status: "off" } | { status: "skipped"; reason: string };

interface GitOptions {
  directory: string;
  message: string;
  env: NodeJS.ProcessEnv;
  signal: AbortSignal;
}

/**
 * Creates a git repository and its first commit, unless the folder is already inside a repository or git does not know
 * the user's name and email. It never throws: the result contains the reason, and no incomplete repository remains.
 */
export async function commitProject({ directory, message, env, signal }: GitOptions): Promise<GitResult> {
  const git = (...args: string[]) =>
    runChild("git", args, {
      cwd: directory,
      // A git hook that runs this program sets the GIT_ variables to its own repository. LC_ALL=C gives English
      // messages, one of which is matched below.
      env: { ...env, GIT_DIR: undefined, GIT_WORK_TREE: undefined, GIT_INDEX_FILE: undefined, LC_ALL: "C" },
      stdio: ["ignore", "pipe", "pipe"],
      signal,
    });

  const inside = await git("rev-parse", "--is-inside-work-tree");
  if (inside.error) {
    return skipped(inside.error.code === "ENOENT" ? "git is not installed" : inside.error.message);
  }
  if (inside.code === 0) return skipped("the folder is already in a git repository");
  if (!inside.stderr.includes("not a git repository")) return skipped(firstLine(inside));

  // Without useConfigOnly, git derives the name from the machine's name, and fails only on some machines.
  for (const variable of ["GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"]) {
    const identity = await git("-c", "user.useConfigOnly=true", "var", variable);
    if (identity.code !== 0) {
      return skipped("git has no name and email (set git config --global user.name and user.email)");
    }
  }

  const branch = await git("config", "--get", "init.defaultBranch");
  const branchOption = branch.code === 0 ? [] : ["-c", "init.defaultBranch=main"];
  for (const args of [
    [...branchOption, "init", "--quiet"],
    ["add", "--all"],
    ["commit", "--quiet", "--message", message],
  ]) {
    const result = await git(...args);
    if (result.code === 0) continue;
    rmSync(join(directory, ".git"), { recursive: true, force: true });
    return skipped(`git ${args.at(-1) === message ? "commit" : args.join(" ")} failed: ${firstLine(result)}`);
  }
  return { status: "committed" };
}

function skipped(reason: string): GitResult {
  return { status: "skipped", reason };
}

function firstLine({ stdout, stderr, code }: ChildResult): string {
  return (stderr.trim() || stdout.trim()).split("\n", 1)[0] || `exit code ${code}`;
}
