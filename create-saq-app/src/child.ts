import { type StdioOptions, spawn } from "node:child_process";

export interface ChildResult {
  /** Exit code. Null if a signal ended the program, or if it did not start. */
  code: number | null;
  stdout: string;
  stderr: string;
  /** Set if the program could not be started; its code is `ENOENT` if the program is not installed. */
  error?: NodeJS.ErrnoException;
}

interface ChildOptions {
  cwd: string;
  env: NodeJS.ProcessEnv;
  stdio: StdioOptions;
  /** An abort ends the program and every process that it started. */
  signal: AbortSignal;
}

/** A program has this time to end by itself before it is killed. */
const GRACE_MS = 2_000;

/**
 * Runs a program to its end. The program gets its own process group, so that an abort also reaches the processes that
 * it started: npm starts shells, and they survive if only npm gets the signal.
 */
export function runChild(
  command: string,
  args: readonly string[],
  options: ChildOptions,
): Promise<ChildResult> {
  const windows = process.platform === "win32";
  return new Promise((resolve) => {
    const { signal, ...rest } = options;
    // On Windows npm is a .cmd file, which only a shell can start. That is safe: no argument comes from the user.
    const child = spawn(command, args, { ...rest, detached: !windows, shell: windows && command === "npm" });
    const output = { stdout: "", stderr: "" };
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      output.stdout += text;
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      output.stderr += text;
    });

    const kill = (name: NodeJS.Signals) => {
      if (child.pid === undefined) return;
      try {
        if (windows) spawn("taskkill", ["/pid", String(child.pid), "/t", "/f"], { stdio: "ignore" });
        else process.kill(-child.pid, name);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
      }
    };
    let killTimer: NodeJS.Timeout | undefined;
    const stop = () => {
      kill("SIGINT");
      killTimer = setTimeout(() => kill("SIGKILL"), GRACE_MS);
    };
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });

    const finish = (code: number | null, error?: NodeJS.ErrnoException) => {
      signal.removeEventListener("abort", stop);
      clearTimeout(killTimer);
      // The program has ended, but processes that it started may still run.
      if (signal.aborted && !windows) kill("SIGKILL");
      resolve({ code, ...output, ...(error && { error }) });
    };
    child.once("error", (error: NodeJS.ErrnoException) => finish(null, error));
    child.once("close", (code) => finish(code));
  });
}
