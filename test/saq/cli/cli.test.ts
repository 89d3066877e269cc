/** The command line of the queue (L-1 to L-8). Calls run in real processes with real signals. */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import pg from "pg";
import { parseCall } from "../../../templates/backend/saq/cli/arguments.js";
import { restartPauseMs } from "../../../templates/backend/saq/worker/processes/worker-processes.js";
import { REPOSITORY } from "../../support/packed.js";
import { Program } from "../../support/program.js";
import { useCli } from "../support/cli.js";
import { eventually } from "../support/processes/child.js";
import { newDatabase } from "../support/processes/database.js";

jest.setTimeout(600_000);

const cli = useCli("cli");
const { folder, app: APP, environment, commandLine, start, startSource, started, call } = cli;
const apps = "test/saq/support/processes";

let database: ReturnType<typeof cli.database>;
let queue: ReturnType<typeof cli.queue>;

beforeAll(() => {
  database = cli.database();
  queue = cli.queue();
});
afterEach(async () => {
  await database.query("delete from saq_stats");
});

const workersOf = async (name: string) =>
  (await database.query("select 1 from saq_stats where queue_key = $1", [name])).length;
const live = (program: Program, count: number, name = "default") =>
  program.until(`${count} workers of ${name}`, 30_000, async () => (await workersOf(name)) === count);
const lines = (program: Program, message: string) =>
  program.output
    .split("\n")
    .filter((line) => line.startsWith("{"))
    .map((line) => JSON.parse(line) as { message: string; process: number; [field: string]: unknown })
    .filter((line) => line.message.includes(message));
const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

describe("workers run", () => {
  it("L-6: prints what it starts, runs all queues in one process, and exits with 0 on SIGTERM (T-125, A-92)", async () => {
    const program = start("workers", "run");
    await live(program, 1);
    await live(program, 1, "mails");
    // A worker is listed before it has written that it starts.
    await program.until(
      "both have started",
      120_000,
      async () => lines(program, "Worker starting").length === 2,
    );
    expect(program.output).toMatch(/^-+ Starting SAQ Workers -+\n/);
    expect(program.output).toContain("default (concurrency 10), mails (concurrency 10)");
    expect(program.output).toMatch(/Number of processes +1\n/);
    expect(childrenOf(program)).toEqual([]);
    const { key } = await queue.enqueue("record");
    await program.prints(/Finished record/, 120_000);
    expect((await database.document(key)).status).toBe("complete");
    process.kill(program.pid, "SIGTERM");
    expect(await program.ended(120_000)).toBe(0);
    expect(lines(program, "Worker shutting down")).toHaveLength(2);
    expect(lines(program, "Worker starting: ")).toHaveLength(2);
  });

  it("L-5: exits with 0 on SIGTERM while it waits for the database", async () => {
    const env = { ...environment(), QUEUE_DSN: "postgresql://u@127.0.0.1:1/d", START_TIMEOUT: "600" };
    const program = started(new Program(commandLine(["workers", "run"]), { cwd: REPOSITORY, env }));
    await program.prints(/waiting for the database/, 120_000);
    process.kill(program.pid, "SIGTERM");
    expect(await program.ended(120_000)).toBe(0);
    expect(program.output).not.toContain("Starting SAQ Workers");
  });

  it("D-49: the parent passes SIGTERM on to its children, which may finish their jobs (T-126, T-141, T-145)", async () => {
    const program = startSource("workers", "run", "--workers", "3", "--queues", "default");
    await live(program, 3);
    expect(await workersOf("mails")).toBe(0);
    const jobs = await Promise.all(Array.from({ length: 9 }, () => queue.enqueue("nap", { ms: 800 })));
    await eventually(
      "they run",
      async () => (await database.runs()).filter(({ ended }) => !ended).length >= 2,
    );
    process.kill(program.pid, "SIGTERM");
    expect(await program.ended(120_000)).toBe(0);
    expect(program.group()).toEqual([]);
    const stopped = new Set(lines(program, "Worker stopped").map((line) => line.process));
    expect(stopped.size).toBe(3);
    expect(lines(program, "killed")).toEqual([]);
    const states = await Promise.all(jobs.map((job) => job.refresh()));
    for (const { status } of states) expect(["complete", "queued"]).toContain(status);
    expect(states.some(({ status }) => status === "complete")).toBe(true);
    await Promise.all(jobs.map((job) => job.abort()));
  });

  it("T-127: Ctrl-C in a terminal ends all processes without a stack trace, with exit code 0", async () => {
    const program = start("workers", "run", "--workers", "2");
    await live(program, 2);
    program.signal("SIGINT");
    expect(await program.ended(120_000)).toBe(0);
    expect(program.output).not.toMatch(/ {4}at /);
    expect(program.group()).toEqual([]);
  });

  it("L-7: kills a child that still runs after grace period, hard deadline and 2 s, and exits with 1 (T-142)", async () => {
    const program = start("workers", "run", "--workers", "2", "--queues", "default");
    await live(program, 2);
    const child = childrenOf(program)[0] as number;
    process.kill(child, "SIGSTOP");
    const began = performance.now();
    process.kill(program.pid, "SIGTERM");
    expect(await program.ended(120_000)).toBe(1);
    const ms = performance.now() - began;
    expect(ms).toBeGreaterThan(3_000);
    // 5.5 s on an idle machine.
    expect(ms).toBeLessThan(60_000);
    expect(lines(program, "did not stop in time and is killed")).toMatchObject([{ pid: child }]);
    expect(isAlive(child)).toBe(false);
  });

  it("L-8: logs a child that dies, restarts it after a pause that doubles, and keeps the others running (T-144)", async () => {
    const program = start("workers", "run", "--workers", "3", "--queues", "default");
    await live(program, 3);
    const [first, second] = childrenOf(program) as [number, number];
    process.kill(first, "SIGKILL");
    await program.prints(/is started again in 1 s/, 120_000);
    expect(lines(program, "Worker process worker-2 ended with SIGKILL")).toMatchObject([
      { pid: first, code: null, signal: "SIGKILL", deaths: 1, pauseMs: 1_000 },
    ]);
    await queue.enqueue("record");
    await program.prints(/Finished record/, 120_000);
    const killed = [first];
    const successor = () => childrenOf(program).find((pid) => pid !== second && !killed.includes(pid)) ?? 0;
    await eventually("another is there", async () => successor() > 0);
    killed.push(successor());
    process.kill(killed[1] as number, "SIGKILL");
    await program.prints(/is started again in 2 s/, 120_000);
    await eventually("another works", async () =>
      lines(program, "Worker starting").some((line) => line.process === successor()),
    );
    process.kill(program.pid, "SIGTERM");
    expect(await program.ended(120_000)).toBe(0);
  });

  it("L-8: the pause before a restart doubles each time, up to 30 s", () => {
    expect([1, 2, 3, 4, 5, 6, 100].map(restartPauseMs)).toEqual([
      1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000,
    ]);
  });

  it("the workers stop when their parent is killed", async () => {
    const program = start("workers", "run", "--workers", "2", "--queues", "default");
    await live(program, 2);
    const children = childrenOf(program);
    process.kill(program.pid, "SIGKILL");
    await eventually("its child has ended", async () => !children.some(isAlive));
    await program.ended(120_000);
    expect(lines(program, "Worker stopped").map((line) => line.process)).toEqual(children);
  });

  it.each(["SIGTERM", "SIGKILL"] as const)(
    "%s to the parent while a child waits for its restart: no process is left",
    async (signal) => {
      const program = start("workers", "run", "--workers", "2", "--queues", "default");
      await live(program, 2);
      for (const pause of [1, 2]) {
        const child = await eventually("the child is there", async () => childrenOf(program)[0]);
        process.kill(child, "SIGKILL");
        await program.prints(new RegExp(`is started again in ${pause} s`), 120_000);
      }
      process.kill(program.pid, signal);
      expect(await program.ended(120_000)).toBe(signal === "SIGTERM" ? 0 : null);
      expect(program.group()).toEqual([]);
    },
  );

  it("L-6: --queues can be repeated", async () => {
    const program = start("workers", "run", "--queues", "mails", "--queues", "default");
    await live(program, 1);
    await live(program, 1, "mails");
    // A worker is listed before it has written that it starts.
    await program.until(
      "both have started",
      120_000,
      async () => lines(program, "Worker starting").length === 2,
    );
    // In the order of the configuration.
    expect(program.output).toContain("default (concurrency 10), mails (concurrency 10)");
    process.kill(program.pid, "SIGTERM");
    expect(await program.ended(120_000)).toBe(0);
    expect(lines(program, "Worker starting: ")).toHaveLength(2);
  });

  it("D-77: refuses an unknown queue with exit code 2 and lists the known names", () => {
    const { status, stdout, stderr } = call(["workers", "run", "--queues", "sample"]);
    expect(status).toBe(2);
    expect(stderr).toBe("Unknown queue name sample. Expected default, mails\n");
    expect(stdout).toBe("");
  });

  it("S-22: skips a queue whose worker runs in the web process, unless --queues names it", async () => {
    const inside = join(folder, "inside.mjs");
    const engine = JSON.stringify(join(folder, "templates/backend/saq/index.js"));
    writeFileSync(
      inside,
      `import { createSaq, defineQueue, defineSaq } from ${engine};
       const options = { dsn: process.env.QUEUE_DSN, tasks: {} };
       const queues = [defineQueue({ name: "inside", separateProcess: false, ...options })];
       export const saq = createSaq(defineSaq({ queues }));\n`,
    );
    expect(call(["workers", "run"], { config: inside })).toMatchObject({ status: 0, stderr: "" });
    const named = commandLine(["workers", "run", "--workers", "2", "--queues", "inside"], inside);
    const program = started(new Program(named, { cwd: REPOSITORY, env: environment() }));
    await live(program, 2, "inside");
    process.kill(program.pid, "SIGTERM");
    expect(await program.ended(120_000)).toBe(0);
  });

  it("T-122, T-123: -v and --debug turn on debug logging; without them it stays off", () => {
    const loaded = /"level":"debug","message":"loaded"/;
    const nobody = ["--queues", "nobody"];
    expect(call(["workers", "run", "-v", ...nobody]).stdout).toMatch(loaded);
    expect(call(["workers", "status", "--debug", ...nobody]).stdout).toMatch(loaded);
    expect(call(["workers", "run", ...nobody]).stdout).toBe("");
  });
});

describe("workers status and check", () => {
  it("D-79: both query the database, and exit with 1 while a queue has no worker (T-140, T-124, L-3)", async () => {
    const before = call(["workers", "status"]);
    expect(before.status).toBe(1);
    expect(before.stdout).toMatch(/^Checking SAQ worker status\nqueue +workers +queued/);
    expect(before.stderr).toBe("No live worker: default, mails. Start one: npm run workers:run\n");
    const unwell = call(["check"]);
    expect(unwell).toMatchObject({ status: 1, stdout: "" });
    expect(unwell.stderr).toContain("No active workers found for queue default\n");

    const program = start("workers", "run", "--queues", "mails");
    await live(program, 1, "mails");
    const { key } = await queue.enqueue("nap", { ms: 1 }, { scheduled: 4_000_000_000 });
    const half = call(["workers", "status"]);
    expect(half.status).toBe(1);
    expect(half.stdout).toMatch(/default +0 +\d+ +1 /);
    expect(half.stdout).toMatch(/mails +1 /);
    expect(half.stderr).toContain("No live worker: default.");
    expect(call(["workers", "status", "--queues", "mails"])).toMatchObject({ status: 0, stderr: "" });
    expect(call(["check", "--queues=mails"])).toEqual({
      status: 0,
      stdout: "Found 1 active workers for queue mails\n",
      stderr: "",
    });
    await queue.abort(key);
    process.kill(program.pid, "SIGTERM");
    expect(await program.ended(120_000)).toBe(0);
    expect(call(["check", "--queues", "mails"]).status).toBe(1);
  });

  it("L-3: check exits with 1 for an unknown queue", () => {
    expect(call(["check", "--queues", "sample"])).toEqual({
      status: 1,
      stdout: "",
      stderr: "Health check failed. Unknown queue name sample. Expected default, mails\n",
    });
  });

  it.each(["workers run", "workers status", "check", "tune"])(
    "%s: reports an unreachable database in one sentence",
    (words) => {
      const { status, stderr } = call(words.split(" "), {
        env: { QUEUE_DSN: "postgresql://u:secret@127.0.0.1:1/d" },
      });
      expect(status).toBe(1);
      expect(stderr).toBe(
        "The database does not answer: connect ECONNREFUSED 127.0.0.1:1. Is the server running, and is the queue's dsn right?\n",
      );
    },
  );
});

it("workers status reports a database that refuses the connection in one sentence, without the password", () => {
  const url = Object.assign(new URL(database.url), { pathname: "/nowhere" }).href;
  const { status, stderr } = call(["workers", "status"], { env: { QUEUE_DSN: url } });
  expect(status).toBe(1);
  expect(stderr).toBe(
    'The database reports an error: database "nowhere" does not exist. Is the queue\'s dsn right?\n',
  );
});

describe("tune", () => {
  it("prints its plan, applies it with --yes, and then has nothing left to do", async () => {
    await database.query("alter table saq_jobs reset (autovacuum_vacuum_cost_delay)");
    const before = call(["tune"]);
    expect(before).toMatchObject({ status: 0, stderr: "" });
    expect(before.stdout).toMatch(/^"public"."saq_jobs": 1 step to do.\n1\. /);
    expect(before.stdout).toContain("Nothing was changed. To apply the plan: npm run saq -- tune --yes\n");
    const reloptions = "select reloptions::text as text from pg_class where relname = 'saq_jobs'";
    const [untouched] = await database.query<{ text: string }>(reloptions);
    expect(untouched?.text ?? "").not.toContain("autovacuum_vacuum_cost_delay");

    const done = call(["tune", "--yes"]);
    expect(done).toMatchObject({ status: 0, stderr: "" });
    expect(done.stdout).toContain("Done: ");
    const [tuned] = await database.query<{ text: string }>(reloptions);
    expect(tuned?.text).toContain("autovacuum_vacuum_cost_delay");
    const after = call(["tune", "--yes"]);
    expect(after).toMatchObject({
      status: 0,
      stdout: expect.stringContaining('"public"."saq_jobs": nothing to do.'),
    });
  });

  it("exits with 1 when a step fails, and says what to do", async () => {
    await database.query("alter table saq_jobs reset (autovacuum_vacuum_cost_delay)");
    const client = new pg.Client({ connectionString: database.url, application_name: "observer" });
    await client.connect();
    try {
      await client.query("begin");
      await client.query("lock table saq_jobs in share update exclusive mode");
      const { status, stderr } = call(["tune", "--yes"]);
      expect(status).toBe(1);
      expect(stderr).toMatch(/^Failed: .*run tune again/);
    } finally {
      await client.end();
    }
  });

  it("exits with 1 when there are no SAQ tables, and creates none", async () => {
    const empty = await newDatabase("cli_empty");
    try {
      const { status, stderr } = call(["tune"], { env: { QUEUE_DSN: empty.url } });
      expect(status).toBe(1);
      expect(stderr).toMatch(/^There are no SAQ tables in schema "public"/);
      expect(await empty.query("select 1 from pg_class where relname = 'saq_jobs'")).toEqual([]);
    } finally {
      await empty.drop();
    }
  });
});

describe("the command line", () => {
  it.each<[string, string]>([
    ["workers rnu", 'There is no command "workers rnu". Did you mean "workers run"?'],
    ["workers", 'There is no command "workers". Did you mean "workers run"?'],
    [
      "frobnicate",
      'There is no command "frobnicate". Commands: workers run, workers status, check, jobs, job, retry, abort, delete, run-now, tune',
    ],
    ["workers run --worker 2", 'There is no option --worker of "workers run". Did you mean --workers?'],
    ["jobs --queues default", 'There is no option --queues of "jobs". Did you mean --queue?'],
    ["retyr", 'There is no command "retyr". Did you mean "retry"?'],
    ["job", '"job" needs a KEY: npm run saq -- job KEY'],
    ["retry a b", '"retry" takes one KEY, got "a", "b".'],
    ["retry --error -x", "--error needs a value, for instance --error ECONNREFUSED."],
    ["check --workers 2", 'There is no option --workers of "check". See: npm run saq -- check --help'],
    ["workers run --workers 0", '--workers must be a whole number of 1 to 1000, got "0".'],
    ["workers run --workers two", '--workers must be a whole number of 1 to 1000, got "two".'],
    ["workers run --queues --workers=2", "--queues needs a value, for instance --queues default."],
    ["workers run --verbose=yes", '--verbose takes no value, got "yes".'],
  ])("L-5: %s is refused", (words, text) => {
    const refusal = () => parseCall(words.split(" "));
    expect(refusal).toThrow(text);
    expect(refusal).toThrow(expect.objectContaining({ exitCode: 2 }));
  });

  it.each<[string, object]>([
    ["workers run", { workers: 1, queues: [], debug: false }],
    ["workers run --workers 3 --queues a --queues b -v -d", { workers: 3, queues: ["a", "b"], debug: true }],
    ["workers run --workers=3 --queues=a --queues=b -vd", { workers: 3, queues: ["a", "b"], debug: true }],
    ["workers run --verbose", { debug: true }],
    ["workers run --debug", { debug: true }],
    ["workers status -v", { debug: true }],
    ["workers status -d", { debug: true }],
  ])("L-6: takes the options of Litestar-SAQ's commands: %s", (words, flags) => {
    expect(parseCall(words.split(" "))).toMatchObject({ flags });
  });

  it.each<[string, object]>([
    ["retry welcome:ann -y --json", { argument: "welcome:ann", yes: true, json: true }],
    ["job --queue a -- -x", { argument: "-x", values: { queue: "a" } }],
    [
      "abort --status queued,active --status failed --task a --error=-b --limit 3",
      { statuses: ["queued", "active", "failed"], values: { task: "a", error: "-b", limit: "3" } },
    ],
  ])("takes a key, and options that select jobs: %s", (words, flags) => {
    expect(parseCall(words.split(" "))).toMatchObject({ flags });
  });

  it("L-5: exits with 2 when it is refused", () => {
    const { status, stdout, stderr } = call(["workers", "rnu"], { config: "" });
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
    expect(stderr).toBe('There is no command "workers rnu". Did you mean "workers run"?\n');
  });

  it("--help explains all commands; after a command it explains this one, with its exit codes", () => {
    const all = call(["--help"]);
    expect(all.status).toBe(0);
    for (const command of ["workers run", "workers status", "check"]) expect(all.stdout).toContain(command);
    const one = call(["workers", "run", "--help", "--nonsense"]);
    expect(one.status).toBe(0);
    expect(one.stdout).toContain("--workers N");
    expect(one.stdout).toContain("Exit code: 0 after a signal");
  });

  it("T-128: --config takes a module that exports `saq`, a function that returns it, or `saqConfig`", () => {
    const factory = join(folder, "factory.mjs");
    writeFileSync(
      factory,
      `import { saq as made } from ${JSON.stringify(APP)};\nexport const saq = async () => made;\n`,
    );
    const config = join(folder, apps, "cli-config.js");
    expect(call(["check", "--queues", "mails"], { config: factory }).stderr).toContain("for queue mails");
    expect(call(["check"], { config }).stderr).toBe("No active workers found for queue default\n");
  });

  it("reports in one sentence that the --config module is missing, exports nothing, or has invalid settings", () => {
    const nowhere = call(["check"], { config: "nowhere.ts" });
    expect(nowhere.status).toBe(2);
    expect(nowhere.stderr).toMatch(/^There is no module .*nowhere.ts. Check --config nowhere.ts\n$/);
    const empty = join(folder, "empty.mjs");
    writeFileSync(empty, "export const sag = 1;\n");
    const { status, stderr } = call(["check"], { config: empty });
    expect(status).toBe(1);
    expect(stderr).toMatch(/empty.mjs exports neither `saq` .* nor `saqConfig`/);
    const refused = call(["check"], { env: { QUEUE_DSN: "mysql://h/d" } });
    expect(refused.status).toBe(1);
    expect(refused.stderr).toMatch(/^defineQueue\("default"\): dsn must begin with postgresql:\/\/.*\n$/);
  });
});

function childrenOf({ pid }: Program): number[] {
  const { stdout } = spawnSync("ps", ["-A", "-o", "ppid=,pid=,stat=,args="], { encoding: "utf8" });
  return stdout
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .filter(
      ([parent, , state, ...args]) =>
        Number(parent) === pid && state !== "Z" && args.join(" ").includes("worker-program"),
    )
    .map(([, child]) => Number(child));
}
