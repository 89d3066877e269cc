// Runs a contestant in child processes, one per role, so that contestants do not share a heap, an event loop or
// optimised code.
import path from "node:path";
import { forkChannel, programChannel } from "./channel.js";

const STOP_MS = 15_000;
const living = new Set();
process.on("exit", () => {
  for (const child of living) child.kill("SIGKILL");
});

export class ContestantProcess {
  #channel;
  #calls = new Map();
  #events = new Map();
  #next = 0;
  #exited;

  /**
   * Starts a process. `role` is "producer", "worker" or "both". `command` starts a program in another language instead
   * of child.js. If `profileDir` is set, child.js writes a CPU profile into this folder.
   */
  static async start({ contestant, role, url, command, profileDir }) {
    const one = new ContestantProcess({ contestant, role, command, profileDir });
    try {
      await one.call("init", { contestant, role, url });
      return one;
    } catch (error) {
      await one.stop();
      throw error;
    }
  }

  constructor({ contestant, role, command, profileDir }) {
    const execArgv = profileDir
      ? [
          "--cpu-prof",
          "--cpu-prof-dir",
          profileDir,
          "--cpu-prof-name",
          `${contestant}-${role}-${Date.now()}.cpuprofile`,
        ]
      : [];
    this.#channel = command
      ? programChannel(command)
      : forkChannel(path.join(import.meta.dirname, "child.js"), execArgv);
    const { child } = this.#channel;
    living.add(child);
    this.#exited = new Promise((resolve) => {
      child.once("exit", (code, signal) => {
        living.delete(child);
        for (const { reject } of this.#calls.values()) {
          reject(new Error(`${contestant} (${role}) ended: ${signal ?? `exit code ${code}`}`));
        }
        resolve();
      });
    });
    this.#channel.listen((message) => {
      if (message.event) return this.#events.get(message.event)?.(message);
      const call = this.#calls.get(message.id);
      this.#calls.delete(message.id);
      if (message.error) call?.reject(new Error(`${contestant} (${role}): ${message.error}`));
      else call?.resolve(message.value);
    });
  }

  call(command, input = {}) {
    const id = ++this.#next;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      this.#channel.send({ id, command, input }, reject);
    });
  }

  get pid() {
    return this.#channel.child.pid;
  }

  on(event, listener) {
    this.#events.set(event, listener);
  }

  /** Resolves when the handler was called `expected` times. */
  finished() {
    return new Promise((resolve) => this.on("done", resolve));
  }

  async stop() {
    const timer = setTimeout(() => this.#channel.child.kill("SIGKILL"), STOP_MS);
    await this.call("stop").catch(() => {});
    this.#channel.close();
    await this.#exited;
    clearTimeout(timer);
  }
}
