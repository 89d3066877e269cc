import type { StdioOptions } from "node:child_process";
import { runChild } from "../child.js";

export type InstallResult =
  | { status: "done" }
  | { status: "skipped" }
  | { status: "failed"; reason: string }
  | { status: "interrupted" };

interface InstallOptions {
  directory: string;
  env: NodeJS.ProcessEnv;
  /** npm writes here itself, so that its progress and its errors are seen as they happen. */
  stdio: StdioOptions;
  signal: AbortSignal;
  /** Called every `HEARTBEAT` ms with the seconds gone by, for outputs where npm shows no progress of its own. */
  onWait?: (seconds: number) => void;
}

const HEARTBEAT = 10_000;

/** The command that is run, and the one to retry. */
export const INSTALL_COMMAND = "npm install";

// Without --include=dev, NODE_ENV=production and omit=dev in npm's settings leave out what development needs.
const INSTALL_ARGUMENTS = ["install", "--include=dev", "--no-audit", "--no-fund", "--no-update-notifier"];

/** Installs the project's dependencies. Never throws: a project without them is still a project. */
export async function install(options: InstallOptions): Promise<InstallResult> {
  const { directory, env, stdio, signal, onWait } = options;
  const started = Date.now();
  const heartbeat = onWait && setInterval(() => onWait(Math.round((Date.now() - started) / 1000)), HEARTBEAT);
  const result = await runChild("npm", INSTALL_ARGUMENTS, {
    cwd: directory,
    env,
    stdio,
    signal,
  });
  clearInterval(heartbeat);
  if (signal.aborted) return { status: "interrupted" };
  if (result.error?.code === "ENOENT") return { status: "failed", reason: "npm was not found on the PATH" };
  if (result.error) return { status: "failed", reason: result.error.message };
  if (result.code === 0) return { status: "done" };
  return { status: "failed", reason: result.code === null ? "it was killed" : `exit code ${result.code}` };
}
