import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { waitFor } from "./wait-for.js";

const backend = path.dirname(import.meta.dirname);

export interface StartedProcess {
  child: ChildProcess;
  /** Returns the output of both streams so far. */
  output(): string;
  /** Waits until the output contains the text. */
  says(text: string): Promise<void>;
  /** Waits for the end of the process. Returns the exit code; null if a signal ended the process. */
  exitCode(): Promise<number | null>;
}

const running = new Set<ChildProcess>();

/** Runs `app/server.ts` or `app/worker.ts` as make does, without the reloader. With NODE_ENV=test, no .env is read. */
export function startProcess(script: string, settings: Record<string, string> = {}): StartedProcess {
  const child = spawn(process.execPath, ["--import", "tsx", script], {
    cwd: backend,
    env: { ...process.env, NODE_ENV: "test", LOG_LEVEL: "info", ...settings },
    stdio: ["ignore", "pipe", "pipe"],
  });
  running.add(child);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  const ended = once(child, "close").then(([code]) => {
    running.delete(child);
    return code as number | null;
  });
  return {
    child,
    output: () => output,
    says: async (text) => {
      await waitFor(`"${text}" from ${script}`, () => {
        if (child.exitCode !== null) throw new Error(`${script} ended before it said "${text}":\n${output}`);
        return output.includes(text);
      });
    },
    exitCode: () => ended,
  };
}

/** Kills the processes that still run. For afterEach: no process outlives its test. */
export async function endProcesses(): Promise<void> {
  const ends = [...running].map((child) => once(child, "close"));
  for (const child of running) child.kill("SIGKILL");
  await Promise.all(ends);
}
