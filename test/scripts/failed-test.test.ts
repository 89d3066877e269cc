/** What the tests of an application print about the database of a failed test. */
import { spawnSync } from "node:child_process";
import { cpSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, expect, it } from "@jest/globals";
import pg from "pg";
import { completeApp, type ScratchApp } from "./support/scratch-app.js";

const backend = join(dirname(dirname(import.meta.dirname)), "templates/backend");
const fails = `
import { it } from "@jest/globals";
it("fails", () => {
  process.stderr.write("its database is " + new URL(String(process.env.DATABASE_URL)).pathname.slice(1) + "\\n");
  throw new Error("on purpose");
});`;

const apps: ScratchApp[] = [];
afterAll(() => {
  for (const { root } of apps) rmSync(root, { recursive: true, force: true });
});

/** Runs a failing test in a new application. */
function runFailing(environment: Record<string, string>): { output: string; database: string } {
  const app = completeApp();
  apps.push(app);
  const root = join(app.root, "backend");
  for (const path of ["test", "jest.config.js"])
    cpSync(join(backend, path), join(root, path), { recursive: true });
  writeFileSync(join(root, "test/fails.test.ts"), fails);
  const { PATH = "", HOME = "" } = process.env;
  const { stdout, stderr } = spawnSync(
    process.execPath,
    ["--experimental-vm-modules", "--disable-warning=ExperimentalWarning", "test/run.js", "test/fails"],
    { cwd: root, encoding: "utf8", env: { PATH, HOME, NODE_ENV: "test", ...environment } },
  );
  const output = stdout + stderr;
  expect(output).toContain("on purpose");
  return { output, database: /its database is (\w+)/.exec(output)?.[1] ?? "" };
}

it("a failed test does not report a kept database when its server stops with the tests", () => {
  expect(runFailing({}).output).not.toContain("kept");
}, 600_000);

it("a failed test keeps its database on another server and prints the name of the database", async () => {
  const url = String(process.env.TEST_DATABASE_URL);
  const { output, database } = runFailing({ TEST_DATABASE_URL: url });
  expect(output).toContain(`Database of the failed test, kept: ${database}`);
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    expect((await client.query("select 1 from pg_database where datname = $1", [database])).rowCount).toBe(1);
  } finally {
    await client.query(`drop database if exists ${database}`);
    await client.end();
  }
}, 600_000);
