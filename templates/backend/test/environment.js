// The environment of each test file: an empty database, and none of the developer's own settings. It is plain
// JavaScript, because Jest resolves no TypeScript imports from an environment.
import { randomBytes } from "node:crypto";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { TestEnvironment } from "jest-environment-node";
import pg from "pg";

/** Timeout for closed connections to leave the server's list, ms. They stay in it for a moment. */
const leaveMs = 30_000;

const ownSettings = ["QUEUE_DSN", "SMTP_URL", "MAIL_FROM", "HOST", "PORT", "AUTH_USER", "AUTH_PASSWORD"];

export default class DatabaseEnvironment extends TestEnvironment {
  #failed = false;

  constructor(config, context) {
    super(config, context);
    const label = path.basename(context.testPath, ".test.ts").replace(/\W+/g, "_").toLowerCase();
    this.databaseName = `test_${label}_${randomBytes(4).toString("hex")}`;
  }

  async setup() {
    await super.setup();
    const url = new URL(process.env.TEST_DATABASE_URL);
    await query(`CREATE DATABASE ${this.databaseName}`);
    url.pathname = `/${this.databaseName}`;
    const { env } = this.global.process;
    for (const name of ownSettings) delete env[name];
    env.DATABASE_URL = url.href;
    env.LOG_LEVEL ??= "silent";
  }

  handleTestEvent(event) {
    if (event.name === "test_done" && event.test.errors.length > 0) this.#failed = true;
  }

  async teardown() {
    await super.teardown();
    const left = await connectionsLeft(this.databaseName);
    // The database of a failed test is kept, so that it can be inspected, but only on a server that outlives the run.
    if (this.#failed && !process.env.TEST_DATABASE_ENDS) {
      process.stderr.write(`Database of the failed test, kept: ${this.databaseName}\n`);
    } else await query(`DROP DATABASE ${this.databaseName} WITH (FORCE)`);
    if (left > 0) {
      throw new Error(
        `${left} database connections were left open: close in afterAll what the tests opened.`,
      );
    }
  }
}

/** @param {string} name @returns {Promise<number>} */
async function connectionsLeft(name) {
  const deadline = Date.now() + leaveMs;
  for (;;) {
    const { length } = await query("SELECT 1 FROM pg_stat_activity WHERE datname = $1", [name]);
    if (length === 0 || Date.now() > deadline) return length;
    await sleep(20);
  }
}

/** @param {string} text @param {unknown[]} [values] */
async function query(text, values) {
  const client = new pg.Client({ connectionString: process.env.TEST_DATABASE_URL });
  await client.connect();
  try {
    return (await client.query(text, values)).rows;
  } finally {
    await client.end();
  }
}
