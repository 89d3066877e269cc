/** A program of SAQ for Python, which runs saq_peer.py. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const python = process.env.TEST_SAQ_PYTHON;
const program = fileURLToPath(new URL("./saq_peer.py", import.meta.url));

/** Why no Python can be used; null if one can. */
export const pythonMissing: string | null = findMissing();

function findMissing(): string | null {
  if (!python) return "TEST_SAQ_PYTHON names no Python with SAQ";
  try {
    execFileSync(python, ["-c", "import saq.queue.redis"], { stdio: "pipe" });
    return null;
  } catch (error) {
    return `TEST_SAQ_PYTHON is ${python}, which has no SAQ: ${(error as Error).message.trim().split("\n").at(-1)}`;
  }
}

interface Message {
  event?: "ready" | "ran";
  key?: string;
  id?: number;
  value?: unknown;
  error?: string;
}

export class PythonSaq {
  /** Keys of the jobs that its worker has started, in order. */
  readonly runs: string[] = [];
  readonly #child: ChildProcess;
  readonly #calls = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  readonly #exited: Promise<void>;
  #next = 0;
  #stderr = "";

  static async start(url: string, name: string): Promise<PythonSaq> {
    const one = new PythonSaq(url, name);
    await one.#ready;
    return one;
  }

  readonly #ready: Promise<void>;

  private constructor(url: string, name: string) {
    this.#child = spawn(python ?? "python3", [program, url, name], { stdio: ["pipe", "pipe", "pipe"] });
    const { stdout, stderr } = this.#child;
    stderr?.on("data", (data: Buffer) => {
      this.#stderr += data.toString();
    });
    this.#exited = new Promise((resolve) => {
      this.#child.once("close", () => {
        for (const { reject } of this.#calls.values())
          reject(new Error(`The Python program has ended: ${this.#stderr}`));
        resolve();
      });
    });
    this.#ready = new Promise((resolve, reject) => {
      void this.#exited.then(() => reject(new Error(`The Python program has ended: ${this.#stderr}`)));
      if (stdout)
        createInterface({ input: stdout }).on("line", (line) => {
          const { event, key, id = -1, value, error } = JSON.parse(line) as Message;
          if (event === "ready") resolve();
          else if (event === "ran") this.runs.push(String(key));
          else {
            const call = this.#calls.get(id);
            this.#calls.delete(id);
            if (error === undefined) call?.resolve(value);
            else call?.reject(new Error(error));
          }
        });
    });
  }

  /** Calls a method of the program's class Peer. */
  call(command: string, input: Record<string, unknown> = {}): Promise<unknown> {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      this.#child.stdin?.write(`${JSON.stringify({ id, command, input })}\n`);
    });
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  /** Ends the program as the end of its input does. */
  async close(): Promise<void> {
    this.#child.stdin?.end();
    await this.#exited;
  }
}
