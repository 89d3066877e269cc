// Runs the quick start of the generated README, command by command, in a generated application outside the repository.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it, jest } from "@jest/globals";
import { codeBlocks, section, shellCommands } from "../support/documents.js";
import { InstalledApp, newcomersEnvironment, type ShownJob } from "../support/installed-app.js";
import { portAnswers } from "../support/left-behind.js";
import { measured } from "../support/measured.js";
import type { Program } from "../support/program.js";
import { runInTerminal, terminalAvailable } from "../support/terminal.js";

jest.setTimeout(600_000);

const TASKS = "backend/app/queue/tasks.ts";
const CONFIG = "backend/app/queue/config.ts";
const ROUTES = "backend/app/queue/routes.ts";

let app: InstalledApp;
let readme: string;
let devAll: Program;
let delayedJob: string;

// Each test continues where the previous test stopped, as a user does.
beforeAll(async () => {
  app = await InstalledApp.copy();
  readme = app.read("README.md");
}, 600_000);

afterAll(() => app?.remove(), 240_000);

/** Changes a file as a save in an editor does. */
function edit(path: string, change: (text: string) => string): void {
  const before = app.read(path);
  const after = change(before);
  if (after === before) throw new Error(`The edit changed nothing in ${path}:\n${before}`);
  writeFileSync(join(app.root, path), after);
}

/** Runs a curl command of the README with this application's port. Returns its response. */
async function curl(command: string): Promise<{ job_id: string; status: string }> {
  return JSON.parse(await app.shell(`${command} --silent --show-error --fail`));
}

it("make dev-all starts the database, API, worker and front end, and prints their addresses", async () => {
  const [command] = codeBlocks(section(readme, "## Quick start")).flatMap(({ code }) => shellCommands(code));
  expect(command).toBe("make dev-all");
  const started = Date.now();
  devAll = app.start(["make", "dev-all"]);
  await devAll.prints(/Starting: API http:\S+, front end http:\S+ Ctrl-C stops everything\./, 120_000);
  await devAll.prints(/\[worker\].*Worker starting: default/, 120_000);
  await devAll.prints(/\[backend\].*API listening on/, 120_000);
  const health = await devAll.until("see its worker", 120_000, async () => {
    const response = await fetch(`${app.url}/health`).catch(() => undefined);
    const body = response?.ok ? ((await response.json()) as { workers: number }) : undefined;
    return body?.workers === 1 && body;
  });
  expect(health).toMatchObject({ status: "ok", queues: [{ name: "default", workers: 1 }] });
  measured("make dev-all until API and worker answer", Date.now() - started);

  expect((await fetch(`${app.url}/saq/`)).status).toBe(200);
  const proxied = await devAll.until("answer through the front end", 120_000, () =>
    fetch(`http://localhost:${app.frontendPort}/health`).catch(() => undefined),
  );
  expect(proxied.status).toBe(200);
});

it("the worker uses a saved edit of tasks.ts within 60 s", async () => {
  const from = devAll.output.length;
  const saved = Date.now();
  edit(TASKS, (text) =>
    text
      .replace('status: "success", message }', 'status: "edited", message }')
      .replace("await sleep(250,", 'await sleep(message === "slow" ? 4_000 : 250,'),
  );
  await devAll.prints(/\[worker\].*Worker starting: default/, 120_000, from);
  const live = Date.now() - saved;
  measured("saved edit until the worker takes jobs with it", live);
  const id = await devAll.until("take a job", 120_000, () => app.enqueueExample("after the edit"));
  expect((await app.complete(id, devAll)).result).toEqual({ status: "edited", message: "after the edit" });
  expect(live).toBeLessThan(60_000);
});

it("a job that runs during a save is requeued without using an attempt and runs again with the new code", async () => {
  const id = await devAll.until("take a job", 120_000, () => app.enqueueExample("slow"));
  await devAll.until("run the job", 120_000, async () => (await app.job(id))?.status === "active");
  edit(TASKS, (text) => text.replace('status: "edited"', 'status: "edited twice"').replace("4_000", "250"));
  const job = await app.complete(id, devAll);
  expect(job).toMatchObject({ attempts: 1, result: { status: "edited twice", message: "slow" } });
  expect(devAll.output).toContain("Requeued exampleTask, the worker is shutting down");
});

it("the three curl commands of the README enqueue their jobs, and the mail is written to .data/outbox", async () => {
  const commands = codeBlocks(section(readme, "## Try it")).flatMap(({ code }) => shellCommands(code));
  expect(commands.map((command) => /http:\S+/.exec(command)?.[0])).toEqual(
    ["example", "email", "delayed"].map((name) => `http://localhost:8000/queue/${name}`),
  );
  const [example = "", email = "", delayed = ""] = commands;

  const answer = await curl(example);
  expect(answer).toEqual({ job_id: expect.stringMatching(/./), status: "queued" });
  expect(await app.complete(answer.job_id, devAll)).toMatchObject({
    attempts: 1,
    result: { message: "Hello from the queue!" },
  });
  const log = new RegExp(
    `Processing exampleTask.*${answer.job_id}[\\s\\S]*Finished exampleTask.*${answer.job_id}`,
  );
  await devAll.prints(log, 120_000);

  const mail = await app.complete((await curl(email)).job_id, devAll);
  const outbox = join(app.root, ".data/outbox");
  const [file = ""] = readdirSync(outbox);
  expect(mail.result).toMatchObject({ to: "user@example.com", delivered_to: join(outbox, file) });
  expect(readFileSync(join(outbox, file), "utf8")).toMatch(/^Subject: Test Email\r?$/m);

  delayedJob = (await curl(delayed)).job_id;
  expect(await app.job(delayedJob)).toMatchObject({ status: "queued", started_at: null });
});

it('the README section "Create your own task" works while make dev-all runs', async () => {
  const text = section(readme, "## Create your own task");
  const [task = "", config = "", route = ""] = codeBlocks(text).map(({ code }) => code);
  edit(TASKS, (before) => `${before}\n${task}`);
  edit(CONFIG, (before) =>
    before
      .replace(/^ *tasks: \{[^}]*\},\n/m, `  ${config}`)
      .replace(
        "delayedTask, exampleTask, nightlyCleanup, sendEmailTask }",
        "delayedTask, exampleTask, myCustomTask, nightlyCleanup, sendEmailTask }",
      ),
  );
  edit(ROUTES, (before) =>
    before.replace("  return router;", `${route.replaceAll(/^(?=.)/gm, "  ")}\n  return router;`),
  );

  const command = /`(curl [^`]*)`/.exec(text)?.[1] ?? "";
  const { job_id: id } = await devAll.until("answer at the new endpoint", 120_000, () =>
    curl(command).catch(() => undefined),
  );
  expect((await app.complete(id, devAll)).result).toEqual({ status: "success", userId: 1 });
});

it("the delayed job starts between 30 and 60 s after it was enqueued", async () => {
  const job: ShownJob = await app.complete(delayedJob, devAll);
  const waited = Date.parse(job.started_at ?? "") - Date.parse(job.queued_at);
  measured("the delayed job's wait", waited);
  expect(waited).toBeGreaterThanOrEqual(30_000);
  expect(waited).toBeLessThanOrEqual(60_000);
});

it("one Ctrl-C finishes the running job and ends everything, and leaves no process and no open port", async () => {
  const id = await devAll.until("take a job", 120_000, () => app.enqueueExample("the last one"));
  await devAll.until("run the job", 120_000, async () => (await app.job(id))?.status === "active");
  const from = devAll.output.length;
  const pressed = Date.now();
  devAll.signal("SIGINT");
  await devAll.ended(120_000);
  measured("Ctrl-C until everything has ended", Date.now() - pressed);
  expect(devAll.output.slice(from)).toMatch(
    /Finished exampleTask[\s\S]*Worker stopped[\s\S]*PostgreSQL \(embedded\) was stopped\. Its data is kept\./,
  );
  expect(devAll.group()).toEqual([]);
  expect(await app.leftBehind()).toEqual([]);
});

// The tests above send signals to the process group, as a terminal does. This test uses a real terminal.
(terminalAvailable ? it : it.skip)(
  "Ctrl-C in a real terminal ends everything except a database that was already running",
  async () => {
    await app.run(["make", "db-start"]);
    const { output } = await runInTerminal(["make", "dev-all"], [["Worker starting: default", "\u0003"]], {
      cwd: app.root,
      env: newcomersEnvironment(),
    });
    expect(output).toContain("Worker stopped");
    expect(output).not.toContain("no answer within");
    expect(await portAnswers(app.databasePort)).toBe(true);
    await app.run(["make", "db-stop"]);
    expect(await app.leftBehind()).toEqual([]);
  },
);

it("make check accepts the edits, and a typo in the task's name or payload is a compile error", async () => {
  await app.run(["make", "check"]);
  const types = ["npm", "run", "--silent", "types", "--workspace=backend"];
  const right = app.read(ROUTES);
  for (const [good, typo] of [
    ['enqueue("myCustomTask"', 'enqueue("myCustomTusk"'],
    ["{ userId: 1,", "{ userIdd: 1,"],
    ["{ userId: 1,", '{ userId: "one",'],
  ] as const) {
    edit(ROUTES, (text) => text.replace(good, typo));
    expect(await app.run(types, { code: 1 })).toMatch(/app\/queue\/routes\.ts.* error TS/);
    writeFileSync(join(app.root, ROUTES), right);
  }
});
