/**
 * The page about the command line, docs/cli.md of the generated application, has the help and a sample of each command,
 * and docs/cli.schema.json describes what `--json` prints. This file runs the commands and compares.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, jest } from "@jest/globals";
import { commandNames } from "../../../templates/backend/saq/cli/commands.js";
import { inSeconds } from "../../../templates/backend/saq/core/job.js";
import { createSaq, defineSaq } from "../../../templates/backend/saq/index.js";
import { REPOSITORY } from "../../support/packed.js";
import { useCli } from "../support/cli.js";
import { jsonSchemaText, outputs } from "../support/cli-output.js";
import { documentedQueue } from "../support/processes/documented-app.js";
import { claim } from "../support/scenario.js";

jest.setTimeout(600_000);

const UPDATE = process.env.UPDATE_CLI === "1";
const PAGE = join(REPOSITORY, "templates/docs/cli.md");
const SCHEMA = join(REPOSITORY, "templates/docs/cli.schema.json");

const cli = useCli("cli_documents", ["test/saq/support/processes/documented-app.ts"]);
let saq: ReturnType<typeof openSaq>;

function openSaq() {
  return createSaq(defineSaq({ queues: [documentedQueue(cli.database().url)] }));
}

beforeAll(async () => {
  saq = openSaq();
  // The commands find the queues where those of a generated application are.
  const index = join(cli.folder, "templates/backend/app/queue/index.js");
  const app = join(cli.folder, "test/saq/support/processes/documented-app.js");
  mkdirSync(dirname(index), { recursive: true });
  writeFileSync(index, `export { saq } from ${JSON.stringify(app)};\n`);
  const queue = saq.taskQueues.get("default");
  for (const [name, error] of [
    ["ann", "Error: connect ECONNREFUSED 10.0.0.7:25"],
    ["bob", "Error: connect ECONNREFUSED 10.0.0.7:25"],
    ["eve", "Error: 550 no such mailbox"],
  ]) {
    const key = `welcome:${name}`;
    await queue.enqueue("sendEmailTask", { to: `${name}@example.com` }, { key });
    await claim(queue as never);
    await queue.finish(key, "failed", { error: `${error}\n    at send (app/mail.ts:41:9)` });
  }
  await queue.enqueue("exampleTask", { message: "hi" }, { key: "report:7" });
  await claim(queue as never);
  await queue.finish("report:7", "complete", { result: { status: "success", message: "hi" } });
  await queue.enqueue("exampleTask", { message: "later" }, { key: "reminder:ann", scheduled: inSeconds(3_600) });
});
afterAll(() => saq?.close());

/** Returns the words of a command as a POSIX shell does, for quotes around a whole word. */
const wordsOf = (line: string) => [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, word]) => quoted ?? word ?? "");

/** Returns what a command prints, and its exit code unless that is 0. */
function outputOf(line: string): string {
  const { status, stdout, stderr } = cli.call(wordsOf(line), { config: "" });
  return `${stdout}${stderr}${status === 0 ? "" : `(exit code ${status})\n`}`;
}

/** Starts workers, and returns what they print before their first log line. `work` is called while they run. */
async function whileWorkersRun(line: string, work: () => Promise<void>): Promise<string> {
  const [file = "", ...rest] = cli.commandLine(wordsOf(line), "");
  const program = cli.startProgram([file, ...rest]);
  const queue = saq.taskQueues.get("default");
  await program.until("have a live worker", 120_000, async () => (await queue.workers()).length === 1);
  await work();
  program.signal("SIGTERM");
  expect(await program.ended(120_000)).toBe(0);
  return `${program.output.split("\n").filter((text) => !text.startsWith("{")).join("\n").trimEnd()}\n`;
}

/** Replaces what differs in every run. */
const withoutChance = (text: string) =>
  text
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "2026-11-19T08:30:00.000Z")
    .replaceAll(/v\d+\.\d+\.\d+/g, "v24.11.0")
    .replaceAll(/(attempt \d+), [\d,]+ ms, worker \S+:/g, "$1, 12 ms, worker lock-1:")
    .replaceAll(/"worker_id": "[^"]+"/g, '"worker_id": "lock-1"')
    .replaceAll(/worker_id( +)\S+/g, "worker_id$1lock-1");

/** The samples, in the order in which they are run. Those with --yes change what later ones find. */
const samples = [
  "workers status",
  "check",
  "jobs",
  "jobs --status failed --error ECONNREFUSED --json",
  "job welcome:ann",
  "retry --status failed --error ECONNREFUSED",
  "retry --status failed --error ECONNREFUSED --yes",
  "retry welcome:eve",
  "retry welcome:eve --yes",
  "abort --status queued --task sendEmailTask",
  "abort --status queued --task sendEmailTask --yes",
  "run-now reminder:ann --yes",
  "delete --status complete,aborted --yes",
  "tune",
];

const blocks = /^```text\n\$ npm run saq -- (.+)\n([\s\S]*?)^```$/gm;

describe("docs/cli.md (to accept a change: UPDATE_CLI=1 npm test -- test/saq/cli/documents)", () => {
  it("shows the help and the samples of all commands as they are", async () => {
    const real = new Map<string, string>();
    for (const line of ["--help", ...commandNames.map((name) => `${name} --help`)]) real.set(line, outputOf(line));
    const live = ["workers status", "check"];
    const banner = await whileWorkersRun("workers run --workers 1", async () => {
      for (const line of live) real.set(line, outputOf(line));
    });
    real.set("workers run --workers 1", banner);
    for (const line of samples) if (!live.includes(line)) real.set(line, outputOf(line));
    for (const [line, output] of real) real.set(line, withoutChance(output));
    outputs.jobs.parse(JSON.parse(real.get("jobs --status failed --error ECONNREFUSED --json") ?? ""));

    if (UPDATE) {
      const page = readFileSync(PAGE, "utf8");
      const updated = page.replaceAll(blocks, (block, line: string) => {
        const output = real.get(line);
        return output === undefined ? block : `\`\`\`text\n$ npm run saq -- ${line}\n${output}\`\`\``;
      });
      writeFileSync(PAGE, updated);
    }
    const shown = new Map(
      [...readFileSync(PAGE, "utf8").matchAll(blocks)].map(([, line = "", output = ""]) => [line, output]),
    );
    expect([...shown.keys()].sort()).toEqual([...real.keys()].sort());
    for (const [line, output] of real) expect({ line, output: shown.get(line) }).toEqual({ line, output });
  });

  it("has a heading and the exit codes of each command", () => {
    const page = readFileSync(PAGE, "utf8");
    const headings = [...page.matchAll(/^## `(.+)`$/gm)].map(([, heading = ""]) => heading.split(" [")[0]);
    expect(headings.map((heading) => heading?.replace(/ KEY$/, ""))).toEqual(commandNames);
    const rows = [...page.matchAll(/^\| `([a-z -]+)`(?:, `[a-z -]+`)* \|/gm)].map(([row]) => row);
    const named = rows.flatMap((row) => [...row.matchAll(/`([a-z -]+)`/g)].map(([, name]) => name));
    expect(named).toEqual(commandNames);
  });
});

it("docs/cli.schema.json is made of the schemas that the tests of the commands use", () => {
  if (UPDATE) writeFileSync(SCHEMA, jsonSchemaText());
  expect(readFileSync(SCHEMA, "utf8")).toBe(jsonSchemaText());
});
