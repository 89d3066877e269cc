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
  /** npm writes directly to these streams, so that its progress and errors are visible immediately. */
  stdio: StdioOptions;
  signal: AbortSignal;
  /** Called every `PROGRESS_INTERVAL_MS` with the elapsed seconds, for outputs on which npm shows no progress. */
  onWait?: (seconds: number) => void;
}

const PROGRESS_INTERVAL_MS = 10_000;

/** The command to show to the user, also for a retry. */
export const INSTALL_COMMAND = "npm install";

// Without --include=dev, npm would leave out the development dependencies if NODE_ENV=production or omit=dev is set.
const INSTALL_ARGUMENTS = ["install", "--include=dev", "--no-audit", "--no-fund", "--no-update-notifier"];

/** Installs the project's dependencies. It never throws, because the project is usable even if the install fails. */
export async function install(options: InstallOptions): Promise<InstallResult> {
  const { directory, env, stdio, signal, onWait } = options;
  const started = Date.now();
  const timer =
    onWait && setInterval(() => onWait(Math.round((Date.now() - started) / 1000)), PROGRESS_INTERVAL_MS);
  const result = await runChild("npm", INSTALL_ARGUMENTS, {
    cwd: directory,
    env,
    stdio,
    signal,
  });
  clearInterval(timer);
  if (signal.aborted) return { status: "interrupted" };
  if (result.error?.code === "ENOENT") return { status: "failed", reason: "npm was not found on the PATH" };
  if (result.error) return { status: "failed", reason: result.error.message };
  if (result.code === 0) return { status: "done" };
  return { status: "failed", reason: result.code === null ? "it was killed" : `exit code ${result.code}` };
}
