import { spawn, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { emptyFolder } from "./folders.js";
import { packedCli } from "./packed.js";

export interface CliRun {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

interface CliOptions {
  cwd: string;
  env?: NodeJS.ProcessEnv;
  /** Called with all of standard output so far when there is more. `kill` sends a signal to the command itself. */
  onOutput?: (stdout: string, kill: (signal: NodeJS.Signals) => void) => void;
}

/** Runs the packed and installed command as a child process without a terminal. */
export async function runCli(args: readonly string[], options: CliOptions): Promise<CliRun> {
  const { bin } = await packedCli();
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [bin, ...args], {
      cwd: options.cwd,
      env: options.env ?? bareEnvironment(),
      stdio: ["ignore", "pipe", "pipe"],
    });
    const run = { stdout: "", stderr: "" };
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      run.stdout += text;
      options.onOutput?.(run.stdout, (signal) => child.kill(signal));
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      run.stderr += text;
    });
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal, ...run }));
  });
}

/** An environment with an empty home folder and no git identity or npm settings. `programs` come first on the PATH. */
export function bareEnvironment(programs: Record<string, string> = {}): NodeJS.ProcessEnv {
  const home = emptyFolder();
  const bin = join(home, "bin");
  mkdirSync(bin);
  for (const [name, script] of Object.entries(programs)) {
    writeFileSync(join(bin, name), script);
    chmodSync(join(bin, name), 0o755);
  }
  const git = spawnSync("which", ["git"], { encoding: "utf8" }).stdout.trim();
  const path = [bin, dirname(process.execPath), git && dirname(git), "/usr/bin", "/bin"].filter(Boolean);
  return { HOME: home, PATH: path.join(":"), GIT_CONFIG_NOSYSTEM: "1", NO_COLOR: "1" };
}

/** Adds a git identity to an environment. */
export function withGitIdentity(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const person = { NAME: "Test Person", EMAIL: "person@example.org" };
  return {
    ...env,
    GIT_AUTHOR_NAME: person.NAME,
    GIT_AUTHOR_EMAIL: person.EMAIL,
    GIT_COMMITTER_NAME: person.NAME,
    GIT_COMMITTER_EMAIL: person.EMAIL,
  };
}
