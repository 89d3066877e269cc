// Runs `make demo`, the README's first command, in a clean clone: from nothing installed to a finished job. Then runs
// the commands of CONTRIBUTING.md in the same clone.
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import { destroyCluster } from "../../templates/scripts/embedded-postgres.js";
import { INSTALL_MS, newcomersEnvironment } from "../support/installed-app.js";
import { portAnswers, processesOf } from "../support/left-behind.js";
import { measured } from "../support/measured.js";
import { REPOSITORY } from "../support/packed.js";
import { Program, runProgram } from "../support/program.js";
import { findRedisServer } from "../support/redis.js";

jest.setTimeout(600_000);

const API = "http://localhost:8000";
const taken = (
  await Promise.all([8000, 5173].map(async (port) => ((await portAnswers(port)) ? [port] : [])))
).flat();
const skipped =
  (!existsSync(join(REPOSITORY, ".git")) && "this is no git repository, so there is nothing to clone") ||
  (taken.length > 0 && `its ports are fixed, and somebody holds ${taken.join(" and ")}`);
if (skipped) process.stderr.write(`make demo in a clean clone is not tested: ${skipped}.\n`);

(skipped ? describe.skip : describe)("a clean clone of the repository", () => {
  let folder: string;
  let clone: string;
  let demo: Program;
  const env = newcomersEnvironment();

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "saq-demo-"));
    // If the tests run as root, the database server runs as another user, who must be able to enter the folder.
    chmodSync(folder, 0o755);
    clone = join(folder, "clone");
    await runProgram(["git", "clone", "--quiet", REPOSITORY, clone], { cwd: folder, env, withinMs: 240_000 });
  }, 600_000);

  afterAll(async () => {
    demo?.signal("SIGKILL");
    await destroyCluster({ dataDir: join(clone, ".demo/app/.data/pg18") });
    for (const { pid } of processesOf(folder)) process.kill(pid, "SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  }, 600_000);

  // A `make demo` that a failed test left would go on installing during the next test.
  afterEach(() => demo?.signal("SIGKILL"));

  const run = (line: string, code = 0) =>
    runProgram(["sh", "-c", line], { cwd: clone, env, withinMs: 240_000, code });

  async function jobDone(program: Program): Promise<void> {
    const response = await program.until("take a job", 120_000, () =>
      fetch(`${API}/queue/example`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ message: "from the demo" }),
      }).catch(() => undefined),
    );
    const { job_id: id } = (await response.json()) as { job_id: string };
    await program.until("finish the job", 120_000, async () => {
      const job = (await (await fetch(`${API}/queue/jobs/${id}`)).json()) as { status: string };
      return job.status === "complete";
    });
  }

  async function endsCleanly(program: Program): Promise<void> {
    program.signal("SIGINT");
    await program.ended(120_000);
    expect(program.group()).toEqual([]);
    expect(processesOf(folder)).toEqual([]);
    for (const port of [8000, 5173]) expect(await portAnswers(port)).toBe(false);
  }

  it(
    "make demo installs the repository, packs the command line, generates an application and runs a job",
    async () => {
      const started = Date.now();
      let last = started;
      const phase = (what: string) => {
        measured(what, Date.now() - last);
        last = Date.now();
      };
      demo = new Program(["make", "demo"], { cwd: clone, env });
      await demo.until("install the repository", INSTALL_MS, () => existsSync(join(clone, ".demo")));
      phase("make demo, the repository's own npm install");
      await demo.prints(/\[demo\] packed the command line/, 120_000);
      phase("make demo, pack");
      await demo.prints(/\[demo\] generated and installed the application/, INSTALL_MS);
      phase("make demo, generate and npm install");
      await demo.prints(/Starting: API http:\/\/localhost:8000, front end http:\/\/localhost:5173/, 120_000);
      phase("make demo, database");
      await jobDone(demo);
      phase("make demo, first job done");
      measured("make demo until the first job is done", Date.now() - started);
      await endsCleanly(demo);
    },
    2 * INSTALL_MS + 600_000,
  );

  it("a second make demo uses the existing application", async () => {
    const started = Date.now();
    demo = new Program(["make", "demo"], { cwd: clone, env });
    await demo.prints(/Using the application in \.demo\/app/, 120_000);
    await jobDone(demo);
    measured("the second make demo until a job is done", Date.now() - started);
    await endsCleanly(demo);
  });

  it("git status shows no changes after make demo", async () => {
    expect(await run("git status --porcelain")).toBe("");
  });

  it("make fix changes no files", async () => {
    await run("make fix");
    expect(await run("git status --porcelain")).toBe("");
  });

  it.each(["npm test -- test/saq/core/wire.test.ts", 'npm test -- test/saq/queue -t "D-23"'])(
    "%s",
    async (command) => {
      expect(await run(command)).toMatch(/Tests: .*[1-9]\d* passed/);
    },
  );

  (findRedisServer() ? it : it.skip)(
    "npm test -- test/saq/queue/apply.test.ts --selectProjects Redis",
    async () => {
      const output = await run("npm test -- test/saq/queue/apply.test.ts --selectProjects Redis");
      expect(output).toMatch(/Tests: .*[1-9]\d* passed/);
    },
  );

  it("UPDATE_TREE=1 npm test -- test/cli/tree changes no files outside test/__snapshots__", async () => {
    expect(await run("UPDATE_TREE=1 npm test -- test/cli/tree")).toMatch(/Tests: .*[1-9]\d* passed/);
    const changed = (await run("git status --porcelain")).split("\n").filter((line) => line !== "");
    expect(changed.filter((line) => !line.includes("test/__snapshots__/"))).toEqual([]);
  });

  it("npm run bench -- --help lists its options", async () => {
    const help = await run("npm run bench -- --help");
    for (const option of ["--scenario", "--rounds", "--json"]) expect(help).toContain(option);
  });

  it("npm run bench:cli measures create-saq-app and create-nothing, and refuses --rounds 0", async () => {
    const report = join(folder, "cli.json");
    await run(`npm run bench:cli -- --contestants create-saq-app,create-nothing --rounds 1 --json ${report}`);
    const { sizes, figures, failures } = JSON.parse(readFileSync(report, "utf8"));
    expect(failures).toEqual([]);
    expect(sizes["create-saq-app"]).toMatchObject({ packages: 1, generated: expect.any(Number) });
    const measuredOf = (name: string) =>
      figures
        .filter(({ contestant }: { contestant: string }) => contestant === name)
        .map(({ figure }: { figure: string }) => figure);
    const start = ["--help", "npm create, first time", "npm create, again"];
    expect(measuredOf("create-nothing")).toEqual(start);
    expect(measuredOf("create-saq-app").sort()).toEqual(
      [...start, "generate", "generate, first commit"].sort(),
    );
    expect(await run("npm run bench:cli -- --rounds 0 2>&1", 2)).toContain(
      '--rounds: a whole number above 0, not "0".',
    );
  });

  it("npm version and npm pack --dry-run prepare a release without .env, node_modules and compiled templates", async () => {
    await run("npm version 99.0.0 --no-git-tag-version");
    const list = await run("npm pack --dry-run");
    expect(list).toContain("create-saq-app-99.0.0.tgz");
    expect(list).not.toMatch(/node_modules|\.env$|templates\/\S*dist\//m);
  });
});
