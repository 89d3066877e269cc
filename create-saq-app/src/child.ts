import { type StdioOptions, spawn } from "node:child_process";

export interface ChildResult {
  /** Null when a signal ended it, or it never started. */
  code: number | null;
  stdout: string;
  stderr: string;
  /** The program could not be started: `ENOENT` when it is not installed. */
  error?: NodeJS.ErrnoException;
}

interface ChildOptions {
  cwd: string;
  env: NodeJS.ProcessEnv;
  stdio: StdioOptions;
  /** Aborting ends the program and everything it started. */
  signal: AbortSignal;
}

/** How long a program may take to end by itself before it is killed, in ms. */
const GRACE = 2_000;

/**
 * Runs a program to its end. It gets a process group of its own, so that an abort reaches its grandchildren too: npm
 * starts shells, and those survive npm when only npm is told to stop.
 */
export function runChild(
  command: string,
  args: readonly string[],
  options: ChildOptions,
): Promise<ChildResult> {
  const windows = process.platform === "win32";
  return new Promise((resolve) => {
    const { signal, ...rest } = options;
    // On Windows npm is a .cmd file, which only a shell can start; none of its arguments comes from the user.
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
    let deadline: NodeJS.Timeout | undefined;
    const stop = () => {
      kill("SIGINT");
      deadline = setTimeout(() => kill("SIGKILL"), GRACE);
    };
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });

    const finish = (code: number | null, error?: NodeJS.ErrnoException) => {
      signal.removeEventListener("abort", stop);
      clearTimeout(deadline);
      // The program is gone, but what it started may not be.
      if (signal.aborted && !windows) kill("SIGKILL");
      resolve({ code, ...output, ...(error && { error }) });
    };
    child.once("error", (error: NodeJS.ErrnoException) => finish(null, error));
    child.once("close", (code) => finish(code));
  });
}
