/** A PostgreSQL server of a test's own, to be killed and paused. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { clusterStatus, destroyCluster, startCluster } from "../../../templates/scripts/embedded-postgres.js";

/** Kept through kill -9 of the server: only the machine's own fall would need fsync. */
const settings = { fsync: "off", full_page_writes: "off" };

export class Cluster {
  readonly #dataDir: string;
  readonly #password = randomBytes(16).toString("hex");
  #port = 0;

  constructor(dataDir: string) {
    this.#dataDir = dataDir;
  }

  /** Answers the address of its `postgres` database; the same at each start. */
  async start(): Promise<string> {
    const cluster = await startCluster({
      dataDir: this.#dataDir,
      port: this.#port,
      password: this.#password,
      settings,
    });
    this.#port = cluster.port;
    return cluster.url("postgres");
  }

  /** kill -9 of the postmaster, and of every backend with it. */
  kill(): void {
    this.#signal("SIGKILL");
  }

  /** Stops every process of the server: connections stay open and nothing answers. */
  pause(): void {
    this.#signal("SIGSTOP");
  }

  resume(): void {
    this.#signal("SIGCONT");
  }

  async destroy(): Promise<void> {
    this.resume();
    await destroyCluster({ dataDir: this.#dataDir });
  }

  #signal(signal: NodeJS.Signals): void {
    const { pid } = clusterStatus({ dataDir: this.#dataDir });
    if (pid === undefined) return;
    const table = execFileSync("ps", ["-A", "-o", "pid=,ppid="], { encoding: "utf8" });
    const processes = table
      .trim()
      .split("\n")
      .map((line) => line.trim().split(/\s+/).map(Number));
    // The parent first: it would take a killed child for a crash, or start another for one that does not answer.
    for (const target of [
      pid,
      ...processes.filter(([, parent]) => parent === pid).map(([child]) => child ?? 0),
    ]) {
      try {
        process.kill(target, signal);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
      }
    }
  }
}
