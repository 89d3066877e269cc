import { chmodSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { destroyCluster } from "../../templates/scripts/embedded-postgres.js";
import { readEnv, writeEnv } from "../../templates/scripts/env.js";
import { freePort } from "./free-port.js";
import { portAnswers, processesOf } from "./left-behind.js";
import { oncePerRun } from "./once.js";
import { packedCli } from "./packed.js";
import { Program, type ProgramOptions, runProgram } from "./program.js";
import { withGitIdentity } from "./run-cli.js";

/** Timeout of `npm install`, ms. It shows no progress, and other tests install at the same time. */
export const INSTALL_MS = 900_000;

/** A job as the demo API returns it. */
export interface ShownJob {
  job_id: string;
  status: string;
  attempts: number;
  queued_at: string;
  started_at: string | null;
  result: unknown;
  error: string | null;
}

/**
 * A generated application with its dependencies installed, in a folder that every user may enter: if the tests run as
 * root, the database server runs as another user.
 */
export class InstalledApp {
  readonly root: string;
  readonly port: number;
  readonly frontendPort: number;
  readonly #folder: string;
  readonly #programs: Program[] = [];

  private constructor(folder: string, port: number, frontendPort: number) {
    this.#folder = folder;
    this.root = join(folder, "my-app");
    this.port = port;
    this.frontendPort = frontendPort;
  }

  /** Returns a copy, with its own ports, of the application that this run generated from the tarball and installed. */
  static async copy(): Promise<InstalledApp> {
    const { root } = await generatedOnce();
    const folder = mkdtempSync(join(tmpdir(), "saq-e2e-"));
    chmodSync(folder, 0o755);
    const app = new InstalledApp(folder, await freePort(), await freePort());
    await runProgram(["cp", "-a", root, app.root], { cwd: folder, env: process.env, withinMs: 120_000 });
    writeEnv(app.root, "PORT", String(app.port));
    writeEnv(app.root, "FRONTEND_PORT", String(app.frontendPort));
    // Several copies run at the same time, and a test checks that nothing is left on its ports.
    writeEnv(app.root, "DB_PORT", String(await freePort()));
    return app;
  }

  get url(): string {
    return `http://localhost:${this.port}`;
  }

  get databasePort(): number {
    return Number(readEnv(this.root).DB_PORT);
  }

  read(path: string): string {
    return readFileSync(join(this.root, path), "utf8");
  }

  /** Starts a command in the application's folder. */
  start(command: readonly string[], options: Partial<ProgramOptions> = {}): Program {
    const program = new Program(command, { cwd: this.root, env: newcomersEnvironment(), ...options });
    this.#programs.push(program);
    return program;
  }

  /** Runs a command in the application's folder to its end. */
  run(
    command: readonly string[],
    options: Partial<ProgramOptions> & { withinMs?: number; code?: number } = {},
  ): Promise<string> {
    return runProgram(command, {
      cwd: this.root,
      env: newcomersEnvironment(),
      withinMs: 240_000,
      ...options,
    });
  }

  /** Runs a command line from the documentation. Only the port is replaced. */
  shell(command: string): Promise<string> {
    return this.run(["sh", "-c", command.replaceAll("localhost:8000", `localhost:${this.port}`)]);
  }

  /** Returns the job as the API shows it; undefined while the API restarts. */
  async job(id: string): Promise<ShownJob | undefined> {
    const response = await fetch(`${this.url}/queue/jobs/${id}`).catch(() => undefined);
    return response?.ok ? ((await response.json()) as ShownJob) : undefined;
  }

  /** Enqueues exampleTask. Returns the job's id; undefined while the API restarts. */
  async enqueueExample(message: string): Promise<string | undefined> {
    const response = await fetch(`${this.url}/queue/example`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ message }),
    }).catch(() => undefined);
    return response?.status === 201 ? ((await response.json()) as ShownJob).job_id : undefined;
  }

  /** Waits until the job is complete. If it fails or takes too long, the error contains the output of `worker`. */
  async complete(id: string, worker: Program, withinMs = 120_000): Promise<ShownJob> {
    return worker.until(`complete job ${id}`, withinMs, async () => {
      const job = await this.job(id);
      if (job?.status === "failed") throw worker.failure(`failed job ${id}: ${job.error}`);
      return job?.status === "complete" && job;
    });
  }

  /** Returns what still runs of this application: processes, and ports that accept connections. Empty if all ended. */
  async leftBehind(): Promise<string[]> {
    const ports = [this.port, this.frontendPort, this.databasePort];
    const open = await Promise.all(ports.map(async (port) => ((await portAnswers(port)) ? [port] : [])));
    return [
      ...processesOf(this.root).map(({ pid, command }) => `process ${pid}: ${command}`),
      ...open.flat().map((port) => `port ${port}`),
    ];
  }

  /** Kills the programs that a failed test left running, so that they do not make the next test fail. */
  killPrograms(): void {
    for (const program of this.#programs) program.signal("SIGKILL");
  }

  /** Ends every process that still runs, and removes the folder. */
  async remove(): Promise<void> {
    this.killPrograms();
    await destroyCluster({ dataDir: join(this.root, ".data/pg18") });
    for (const { pid } of processesOf(this.#folder)) {
      try {
        process.kill(pid, "SIGKILL");
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
      }
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/**
 * Returns the environment of a new user's shell, with home folder and npm settings, and without variables of jest, npm
 * run, make or Docker.
 */
export function newcomersEnvironment(): NodeJS.ProcessEnv {
  const foreign =
    /^(NODE_ENV|NODE_OPTIONS|JEST_.*|TEST_.*|FORCE_COLOR|INIT_CWD|MAKE.*|MFLAGS|npm_(?!config_).*|PORT|HOST|FRONTEND_PORT|DATABASE_URL|DB_.*|QUEUE_DSN|REDIS_MODE|SMTP_URL|LOG_LEVEL|AUTH_.*)$/;
  const own = Object.entries(process.env).filter(([name]) => !foreign.test(name));
  return withGitIdentity({
    ...Object.fromEntries(own),
    NO_COLOR: "1",
    // The mode of the database (embedded or Docker) must not depend on this machine.
    DOCKER_HOST: "unix:///nonexistent/docker.sock",
    npm_config_prefer_offline: "true",
    npm_config_update_notifier: "false",
  });
}

function generatedOnce(): Promise<{ root: string }> {
  return oncePerRun("generated", INSTALL_MS, async (folder) => {
    const { bin } = await packedCli();
    await runProgram([process.execPath, bin, "my-app", "--yes"], {
      cwd: folder,
      // As in a shell that is set up for production, where npm leaves out development packages.
      env: { ...newcomersEnvironment(), NODE_ENV: "production", npm_config_omit: "dev" },
      withinMs: INSTALL_MS,
    });
    return { root: join(folder, "my-app") };
  });
}
