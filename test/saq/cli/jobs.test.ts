/** The commands that list, show and change jobs. Calls run in real processes, on PostgreSQL and on Redis. */
import { afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import pg from "pg";
import type { z } from "zod";
import { parseCall } from "../../../templates/backend/saq/cli/arguments.js";
import { changeJobs } from "../../../templates/backend/saq/cli/change-jobs.js";
import { listJobs } from "../../../templates/backend/saq/cli/jobs.js";
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import { createSaq, defineQueue, defineSaq } from "../../../templates/backend/saq/index.js";
import { type Ended, useCli } from "../support/cli.js";
import { outputs } from "../support/cli-output.js";
import { loadRedisClient } from "../support/processes/enqueuer.js";
import { claim } from "../support/scenario.js";
import { itOnPostgres, itOnRedis, onRedis } from "../support/test-broker.js";

jest.setTimeout(600_000);

if (onRedis) beforeAll(loadRedisClient);
const cli = useCli("cli_jobs");
const { call } = cli;

afterEach(async () => {
  const queue = cli.queue();
  await queue.changeMany({ statuses: ["active", "queued"] }, "abort");
  for (const { key } of await queue.list({ statuses: ["aborting"] })) await queue.finish(key, "aborted");
  await queue.changeMany({}, "delete");
});

const run = (words: string, ...more: string[]): Ended => call([...words.split(" "), ...more]);

/** Stores a job under this key that has failed with this error. */
async function fail(key: string, error: string, task: "record" | "noop" = "record"): Promise<void> {
  await cli.queue().enqueue(task, undefined, { key });
  await claim(cli.queue() as never, { limit: 100 });
  await cli.queue().finish(key, "failed", { error });
}

/** Returns the output as the schema describes it. */
function json<Name extends keyof typeof outputs>(
  name: Name,
  { stdout }: Ended,
): z.infer<(typeof outputs)[Name]> {
  return outputs[name].parse(JSON.parse(stdout)) as z.infer<(typeof outputs)[Name]>;
}

const statusOf = async (key: string) => (await cli.queue().job(key))?.status ?? null;

describe("jobs", () => {
  it("lists jobs of all queues, the newest first, in a table", async () => {
    await fail("mail:ann", "Error: connect ECONNREFUSED\n    at line 1\u001b[31m");
    await cli.queue().enqueue("nap", { ms: 1 }, { key: "nap:bob", scheduled: inSeconds(600) });
    const { status, stdout, stderr } = run("jobs");
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const lines = stdout.trimEnd().split("\n");
    expect(lines[0]).toMatch(/^queue +key +task +state +attempts +enqueued +error$/);
    expect(lines.slice(2).sort()).toEqual([
      expect.stringMatching(/^default +mail:ann +record +failed +1 +20\S+Z +Error: connect ECONNREFUSED$/),
      expect.stringMatching(/^default +nap:bob +nap +scheduled +0 +20\S+Z$/),
    ]);
    expect(run("jobs --queue mails").stdout).toBe("There are no such jobs.\n");
  });

  it("lists the jobs that the options select, as JSON that its schema describes", async () => {
    await fail("a:1", "Error: ECONNREFUSED");
    await fail("a:2", "Error: no such host");
    await fail("b:1", "Error: ECONNREFUSED", "noop");
    const keys = (...words: string[]) => {
      const ended = call(["jobs", "--json", ...words]);
      expect(ended).toMatchObject({ status: 0, stderr: "" });
      return json("jobs", ended)
        .jobs.map(({ key }) => key)
        .sort();
    };
    expect(keys()).toEqual(["a:1", "a:2", "b:1"]);
    expect(keys("--error", "ECONNREFUSED")).toEqual(["a:1", "b:1"]);
    expect(keys("--task", "record", "--error", "ECONNREFUSED", "--status", "failed")).toEqual(["a:1"]);
    expect(keys("--key-prefix", "a:", "--limit", "1")).toHaveLength(1);
    expect(keys("--enqueued-after", "1h")).toHaveLength(3);
    expect(keys("--enqueued-before", "1h")).toEqual([]);
    expect(keys("--enqueued-before", "2999-01-01", "--status", "failed,aborted")).toHaveLength(3);
    expect(keys("--status", "scheduled")).toEqual([]);
    expect(call(["jobs", "--limit", "2"]).stdout).toContain(
      "There may be more jobs. To see more: --limit 4\n",
    );
  });
});

describe("job", () => {
  it("shows one job of any queue, as text and as JSON that its schema describes", async () => {
    await fail("mail:ann", "Error: boom\n    at line 1");
    const text = run("job mail:ann");
    expect(text).toMatchObject({ status: 0, stderr: "" });
    expect(text.stdout).toMatch(/^queue +default\nkey +mail:ann\ntask +record\nstate +failed\n/);
    expect(text.stdout).toMatch(/\nmeta +\{\}\nfailed attempts:\n\S+Z {2}attempt 1, [\d,]+ ms, worker \S+: Error: boom\n/);
    expect(text.stdout).toMatch(/: Error: boom\nerror:\nError: boom\n {4}at line 1\n$/);
    expect(json("job", run("job mail:ann --queue default --json")).job).toMatchObject({
      queue: "default",
      key: "mail:ann",
      state: "failed",
      attempts: 1,
      error: "Error: boom\n    at line 1",
      result: null,
      meta: {},
      history: [{ attempt: 1, error: "Error: boom\n    at line 1" }],
    });
  });

  it("exits with 1 if there is no such job", async () => {
    expect(run("job nobody")).toEqual({
      status: 1,
      stdout: "",
      stderr: "There is no job nobody in default, mails.\n",
    });
    await fail("mail:ann", "no");
    expect(run("job mail:ann --queue mails").status).toBe(1);
  });
});

describe("a change of one job", () => {
  it("shows the job and what to run; with --yes it changes the job", async () => {
    await fail("it's:1", "boom");
    const shown = run("retry it's:1");
    expect(shown).toMatchObject({ status: 0, stderr: "" });
    expect(shown.stdout).toMatch(/^queue [^\n]+\n-[^\n]+\ndefault +it's:1 +record +failed/);
    expect(shown.stdout).toContain(
      `\nNothing was changed. To retry it: npm run saq -- retry 'it'\\''s:1' --config ${cli.app} --yes\n`,
    );
    expect(await statusOf("it's:1")).toBe("failed");
    expect(run("retry it's:1 --yes")).toEqual({
      status: 0,
      stdout: "Job it's:1 of queue default waits again.\n",
      stderr: "",
    });
    expect(await statusOf("it's:1")).toBe("queued");
  });

  it.each([
    ["retry", "not_finished", /is not finished; only a complete, failed or aborted job can be retried\.\n$/],
    ["delete", "running", /runs; only a job that waits or is finished can be deleted\. Abort it first\.\n$/],
    ["run-now", "not_waiting", /does not wait for its time\.\n$/],
  ])("%s of a running job exits with 1 and says why", async (command, answer, message) => {
    await cli.queue().enqueue("record", undefined, { key: "runs" });
    await claim(cli.queue() as never);
    const text = run(`${command} runs --yes`);
    expect(text).toMatchObject({ status: 1, stdout: "", stderr: expect.stringMatching(message) });
    const ended = run(`${command} runs --yes --json`);
    expect(ended.status).toBe(1);
    expect(json("change_one", ended)).toEqual({
      action: command,
      queue: "default",
      key: "runs",
      dry_run: false,
      answer,
      changed: false,
    });
    expect(await statusOf("runs")).toBe("active");
  });

  it("aborts, makes due and deletes; each call says what it did", async () => {
    const queue = cli.queue();
    await queue.enqueue("record", undefined, { key: "later", scheduled: inSeconds(600) });
    expect(json("change_one", run("run-now later --json"))).toMatchObject({
      dry_run: true,
      answer: null,
      changed: false,
    });
    expect(run("run-now later -y").stdout).toBe("Job later of queue default is due now.\n");
    expect(run("run-now later -y").stdout).toBe("Job later of queue default is due already.\n");
    const already = run("run-now later -y --json");
    expect(already.status).toBe(0);
    expect(json("change_one", already)).toMatchObject({ answer: "already_due", changed: false });
    const all = call(["run-now", "--queue", "default", "--status", "queued", "-y", "--json"]);
    expect(all.status).toBe(0);
    expect(json("change", all)).toMatchObject({ changed: 0, skipped: { already_due: 1 } });
    const running = call(["retry", "--queue", "default", "--status", "queued", "-y", "--json"]);
    expect(running.status).toBe(1);
    expect(json("change", running)).toMatchObject({ changed: 0, skipped: { not_finished: 1 } });
    expect(run("abort later -y").stdout).toBe("Job later of queue default is aborted.\n");
    expect(run("abort later -y")).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("is finished"),
    });
    expect(json("change_one", run("delete later -y --json"))).toMatchObject({
      answer: "deleted",
      changed: true,
    });
    expect(run("delete later -y")).toMatchObject({
      status: 1,
      stderr: "There is no job later in default, mails.\n",
    });
  });
});

describe("a change of the jobs that options select", () => {
  it("counts them and says what to run; with --yes it changes them", async () => {
    await fail("a:1", "Error: ECONNREFUSED");
    await fail("a:2", "Error: ECONNREFUSED");
    await fail("a:3", "Error: no such host");
    const options = ["--queue", "default", "--error", "ECONNREFUSED"];
    const counted = call(["retry", ...options]);
    expect(counted).toMatchObject({ status: 0, stderr: "" });
    expect(counted.stdout).toBe(
      "2 jobs of queue default match. 2 jobs can be retried.\n" +
        "Nothing was changed. To retry them: npm run saq -- retry --queue default --error ECONNREFUSED " +
        `--config ${cli.app} --yes\n`,
    );
    expect(json("change", call(["retry", ...options, "--json"]))).toEqual({
      action: "retry",
      queue: "default",
      dry_run: true,
      matched: 2,
      changed: 2,
      skipped: {},
      cursor: null,
    });
    expect(await statusOf("a:1")).toBe("failed");
    const done = call(["retry", ...options, "--yes", "--json"]);
    expect(done.status).toBe(0);
    expect(json("change", done)).toMatchObject({ dry_run: false, matched: 2, changed: 2, cursor: null });
    // The audit line of the application's logger.
    expect(done.stderr).toContain('"message":"Changed jobs by filter: retry, 2 of 2 jobs"');
    expect(JSON.parse(done.stderr) as object).toMatchObject({
      by: expect.stringMatching(/@.+ \(command line\)$/),
    });
    expect([await statusOf("a:1"), await statusOf("a:2"), await statusOf("a:3")]).toEqual([
      "queued",
      "queued",
      "failed",
    ]);
    const none = call(["retry", ...options, "--yes"]);
    expect(none.status).toBe(0);
    expect(none.stdout).toContain("\n0 jobs of queue default were retried.\n");
  });

  it("says which jobs it skips, and goes on with --cursor", async () => {
    const queue = cli.queue();
    for (const key of ["x:1", "x:2", "x:3"])
      await queue.enqueue("record", undefined, { key, scheduled: inSeconds(600) });
    await queue.enqueue("record", undefined, { key: "cron:nightly", scheduled: inSeconds(600) });
    expect(call(["run-now", "--queue", "default", "--status", "scheduled"]).stdout).toContain(
      "4 jobs of queue default match. 3 jobs can be made due. Skipped: 1 (tick of a recurring task).\n" +
        "Nothing was changed. To make them due now: ",
    );
    const options = ["--queue", "default", "--enqueued-after", "2h", "--key-prefix=x:", "--limit", "2"];
    const counted = call(["abort", ...options]);
    expect(counted).toMatchObject({ status: 0, stderr: "" });
    const { time = "", cursor: counting = "" } =
      new RegExp(
        "^2 jobs of queue default match\\. 2 jobs can be aborted\\. There may be more\\.\n" +
          "Nothing was changed\\. To abort them: npm run saq -- abort --queue default --key-prefix=x: --limit 2 " +
          "--config \\S+ --enqueued-after (?<time>\\S+Z) --yes\n" +
          "To count the next ones: npm run saq -- abort --queue default --key-prefix=x: --limit 2 " +
          "--config \\S+ --enqueued-after \\k<time> --cursor (?<cursor>\\S+)\n$",
      ).exec(counted.stdout)?.groups ?? {};
    const absolute = ["--queue", "default", "--enqueued-after", time, "--key-prefix=x:", "--limit", "2"];
    const next = call(["abort", ...absolute, "--cursor", counting]);
    expect(next.stdout).toMatch(/^1 job of queue default matches\. 1 job can be aborted\.\nNothing was changed\. To /);
    // The change begins with the first job, whatever was counted.
    expect(next.stdout).not.toContain("--cursor");
    const some = call(["abort", ...options, "--yes"]);
    expect(some.status).toBe(0);
    const [, first = "", cursor = ""] = /--enqueued-after (\S+) --cursor (\S+)\n$/.exec(some.stdout) ?? [];
    expect(some.stdout).toContain("2 jobs of queue default were aborted. There may be more.\nTo go on: npm run saq --");
    const from = ["--queue=default", "--key-prefix=x:", "--enqueued-after", first, `--cursor=${cursor}`];
    expect(call(["retry", ...from])).toMatchObject({
      status: 2,
      stderr: expect.stringContaining("the cursor is one of a change with another queue, action or filter"),
    });
    const rest = call(["abort", ...from, "--yes", "--json"]);
    expect(json("change", rest)).toMatchObject({ matched: 1, changed: 1, cursor: null });
  });

  itOnPostgres("exits with 1 if another transaction holds a job", async () => {
    await fail("held", "boom");
    await fail("free", "boom");
    const database = cli.database();
    const client = new pg.Client({ connectionString: database.url, application_name: "observer" });
    await client.connect();
    try {
      await client.query("begin");
      await client.query("select 1 from saq_jobs where key = 'held' for update");
      const { status, stdout } = call(["retry", "--queue", "default", "--status", "failed", "--yes"]);
      expect(status).toBe(1);
      expect(stdout).toContain(
        "\n1 job of queue default was retried. Skipped: 1 (held by another transaction).\n",
      );
    } finally {
      await client.end();
    }
    expect([await statusOf("held"), await statusOf("free")]).toEqual(["failed", "queued"]);
  });

  it("stops after a page at Ctrl-C or SIGTERM, says how to go on, and exits with 130", async () => {
    const count = 30_000;
    for (let n = 0; n < count; n += 2_000)
      await cli.queue().enqueueMany(Array.from({ length: 2_000 }, () => ({ task: "noop" as const })));
    const words = ["abort", "--queue", "default", "--status", "queued", "--yes"];
    /** Runs the command until it has aborted more jobs than before, and stops it. Returns its arguments to go on. */
    const stop = async (signal: NodeJS.Signals, ...more: string[]): Promise<string[]> => {
      const before = (await cli.queue().counts()).aborted;
      const program = cli.start(...words, "--limit", String(count - before + 7), ...more);
      const hasMore = async () => (await cli.queue().counts()).aborted > before;
      await program.until("has aborted some jobs", 120_000, hasMore);
      program.signal(signal);
      expect(await program.ended(120_000)).toBe(130);
      const { aborted } = await cli.queue().counts();
      const done = (aborted - before).toLocaleString("en-US");
      const rest = count - aborted + 7;
      const [, goOn = ""] =
        new RegExp(
          `Stopped: ${done} jobs aborted\\. To go on: npm run saq -- ${words.join(" ")} ` +
            `--config \\S+ --limit ${rest} (--cursor \\S+)\n`,
        ).exec(program.output) ?? [];
      expect(goOn).not.toBe("");
      return goOn.split(" ");
    };
    const first = await stop("SIGINT");
    const second = await stop("SIGTERM", ...first);
    const { aborted } = await cli.queue().counts();
    const rest = call([...words, "--json", ...second]);
    expect(json("change", rest)).toMatchObject({
      matched: count - aborted,
      changed: count - aborted,
      cursor: null,
    });
  });

  itOnPostgres.each([
    ["retry --status failed", "Choose a queue: --queue default, --queue mails."],
    ["retry --queue none --status failed", "Unknown queue name none. Expected default, mails"],
    ["jobs --queue none", "Unknown queue name none. Expected default, mails"],
  ])("%s is refused with exit code 2", (words, message) => {
    expect(run(words)).toEqual({ status: 2, stdout: "", stderr: `${message}\n` });
  });

  itOnPostgres("exits with 1 if a document cannot be read, or if the list takes too long", async () => {
    await cli.database().query(
      "insert into saq_jobs (key, queue, status, job) values ('broken', 'default', 'failed', convert_to('{', 'UTF8'))",
    );
    await fail("whole", "boom");
    const changed = call(["retry", "--queue", "default", "--status", "failed", "--yes", "--json"]);
    expect(changed.status).toBe(1);
    expect(json("change", changed)).toMatchObject({ changed: 1, skipped: { unreadable: 1 } });
    const client = new pg.Client({ connectionString: cli.database().url, application_name: "observer" });
    await client.connect();
    try {
      await client.query("begin");
      await client.query("lock table saq_jobs in access exclusive mode");
      const slow = run("jobs --queue default");
      expect(slow).toMatchObject({ status: 1, stdout: "", stderr: expect.stringContaining("was cancelled after 5 s") });
    } finally {
      await client.end();
    }
  });

  itOnPostgres.each(["jobs", "job a", "retry a", "delete --queue default --status failed"])(
    "%s exits with 1 if the database is unreachable",
    (words) => {
      const ended = call(words.split(" "), { env: { QUEUE_DSN: "postgresql://u:secret@127.0.0.1:1/d" } });
      expect(ended).toMatchObject({ status: 1, stdout: "", stderr: expect.stringContaining("does not answer") });
    },
  );

  itOnRedis("refuses a key that jobs of two queues have with exit code 2", async () => {
    const options = { name: "mails", dsn: cli.database().url, tasks: { record: () => null } };
    const saq = createSaq(defineSaq({ queues: [defineQueue(options)] }));
    const mails = saq.taskQueues.get("mails");
    await cli.queue().enqueue("record", undefined, { key: "both" });
    await mails.enqueue("record", undefined, { key: "both" });
    expect(run("job both")).toEqual({
      status: 2,
      stdout: "",
      stderr: "The queues default and mails have a job both. Choose one of them: --queue default\n",
    });
    expect(run("abort both --queue mails --yes").status).toBe(0);
    await mails.delete("both");
    await saq.close();
  });

  it("refuses an invalid cursor with exit code 2", () => {
    expect(call(["retry", "--queue", "default", "--status", "failed", "--cursor", "x"])).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('cursor must be the cursor of a previous result, got "x"'),
    });
  });
});

describe("a command line that cannot be right", () => {
  const programs = { jobs: listJobs, retry: changeJobs("retry"), abort: changeJobs("abort"), delete: changeJobs("delete") };

  it.each<[keyof typeof programs, string, string]>([
    ["jobs", "--status new", '--status must be one of queued, scheduled, active, aborting, complete, failed, aborted, got "new".'],
    ["jobs", "--limit 0", '--limit must be a whole number from 1, got "0".'],
    [
      "jobs",
      "--enqueued-after soon",
      '--enqueued-after must be a time such as 2026-11-19T08:30:00Z, or 90s, 30m, 2h or 7d (that long ago), got "soon".',
    ],
    ["retry", "--yes", '"retry" needs the KEY of a job, or options that select jobs, for instance --status failed.'],
    ["delete", "--limit 3", '"delete" needs the KEY of a job, or options that select jobs, for instance --status failed.'],
    ["abort", "a --status queued", '"abort" takes the KEY of a job or options that select jobs, not both.'],
    ["jobs", "--task a --task b", '--task takes one value, got "a" and "b".'],
    ["abort", "a --limit 3", '"abort" takes the KEY of a job or --limit, not both.'],
  ])("%s %s is refused with exit code 2 before anything is loaded", async (command, words, message) => {
    const start = async () => {
      const call = parseCall([command, ...words.split(" ")]);
      if (!("flags" in call)) throw new Error("These words asked for help.");
      return programs[command](call.flags);
    };
    await expect(start()).rejects.toMatchObject({
      exitCode: 2,
      message: expect.stringContaining(message),
    });
  });
});
