/** A PostgreSQL server for one test, which kills and pauses it. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  clusterStatus,
  destroyCluster,
  startCluster,
} from "../../../../templates/scripts/embedded-postgres.js";

/** The data survive kill -9 of the server without fsync: only a crash of the machine needs it. */
const settings = { fsync: "off", full_page_writes: "off" };

export class Cluster {
  readonly #dataDir: string;
  readonly #password = randomBytes(16).toString("hex");
  #port = 0;

  constructor(dataDir: string) {
    this.#dataDir = dataDir;
  }

  /** Starts the server. Returns the address of its `postgres` database, which is the same at each start. */
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

  /** Kills the postmaster and all its child processes with kill -9. */
  kill(): void {
    this.#signal("SIGKILL");
  }

  /** Stops every process of the server: connections stay open, and no statement gets a response. */
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
    // The postmaster first: it would treat a killed child as a crash, or replace a child that does not respond.
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
