// The real processes around a browser test: Node programs, a mail server, the database server.
import { type ChildProcess, spawn } from "node:child_process";
import { createRequire } from "node:module";
import type { AddressInfo, Server } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import pg from "pg";

// The package has no types.
const { SMTPServer } = createRequire(new URL("../../templates/backend/package.json", import.meta.url))(
  "smtp-server",
) as {
  SMTPServer: new (
    options: object,
  ) => {
    server: Server;
    listen(port: number, host: string, done: () => void): void;
    close(done: () => void): void;
  };
};

/** A Node program that a test runs; its output is kept for the message of a failed start. */
export class Program {
  readonly ended: Promise<number | null>;
  private readonly child: ChildProcess;
  private output = "";

  constructor(args: string[], cwd: string, env: Record<string, string>) {
    this.child = spawn(process.execPath, args, { cwd, env: { ...process.env, ...env }, stdio: "pipe" });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.output += text;
      });
    }
    this.ended = new Promise((done) => this.child.once("close", done));
  }

  /** Waits until `url` returns 200 with a body for which `accept` returns true. */
  async answers(url: string, accept: (body: { workers: number }) => boolean): Promise<void> {
    const deadline = Date.now() + 120_000;
    while (Date.now() < deadline && this.child.exitCode === null) {
      const response = await fetch(url).catch(() => undefined);
      if (response?.ok && accept((await response.json()) as { workers: number })) return;
      await sleep(100);
    }
    throw new Error(`${this.child.spawnargs.join(" ")} did not come up at ${url}:\n${this.output}`);
  }

  async stop(): Promise<void> {
    if (this.child.exitCode === null) this.child.kill("SIGTERM");
    await this.ended;
  }
}

/** Starts a mail server that accepts every mail, so that no mail is left in the application's outbox. */
export async function startMailServer(): Promise<{ port: number; stop(): Promise<void> }> {
  const server = new SMTPServer({ authOptional: true, disabledCommands: ["STARTTLS"] });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return {
    port: (server.server.address() as AddressInfo).port,
    stop: () => new Promise<void>((done) => server.close(done)),
  };
}

/** Runs one statement in the test server's own database. */
export async function inServer(statement: string): Promise<void> {
  const client = new pg.Client(process.env.TEST_DATABASE_URL);
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}
