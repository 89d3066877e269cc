// The table of the benchmark, made from files as `npm run bench -- --json FILE` writes them.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "@jest/globals";
import { emptyFolder } from "../support/folders.js";
import { REPOSITORY } from "../support/packed.js";
import { runProgram } from "../support/program.js";
import { bareEnvironment } from "../support/run-cli.js";

type Figure = { figure: string; unit: string; better: "higher" | "lower"; grownFrom?: string };
type Values = Record<string, readonly (number | null)[]>;

const DRAIN: Figure = { figure: "drain", unit: "jobs/s", better: "higher" };
const PICKUP: Figure = { figure: "pickup, p50", unit: "ms", better: "lower" };
const SMALL: Figure = { figure: "cost, small table", unit: "us", better: "lower" };
const LARGE: Figure = { figure: "cost, large table", unit: "us", better: "lower", grownFrom: SMALL.figure };

function reportOf(...figures: [Figure, Values][]): string {
  const rows = figures.flatMap(([figure, values]) =>
    Object.entries(values).map(([contestant, ofRounds]) => ({ ...figure, contestant, values: ofRounds })),
  );
  return fileWith(JSON.stringify({ figures: rows }));
}

function fileWith(text: string): string {
  const file = join(emptyFolder(), "report.json");
  writeFileSync(file, text);
  return file;
}

/** Runs `npm run bench:table -- FILE...`. */
function table(files: readonly string[], code = 0): Promise<string> {
  return runProgram(["npm", "run", "bench:table", "--", ...files], {
    cwd: REPOSITORY,
    env: { ...bareEnvironment(), npm_config_update_notifier: "false" },
    withinMs: 15_000,
    code,
  });
}

/** Returns the cells of the row that begins with `name`. */
function cells(output: string, name: string): string[] {
  const row = output.split("\n").find((text) => text.startsWith(`| ${name} |`));
  if (row === undefined) throw new Error(`No row "${name}" in:\n${output}`);
  return row
    .split("|")
    .slice(2, -1)
    .map((cell) => cell.trim());
}

describe("npm run bench:table", () => {
  it("joins the rounds of all files, and compares the engine with the best peers and with minimal-wire", async () => {
    const first = reportOf([
      DRAIN,
      {
        engine: [20_000, 24_000],
        "minimal-wire": [40_000, 40_000],
        "graphile-worker": [2_000, 2_400],
        "pg-boss": [1_000, null],
        "bullmq-redis": [90_000, 90_000],
      },
    ]);
    const second = reportOf(
      [DRAIN, { engine: [32_000], "minimal-wire": [40_000], "graphile-worker-tuned": [40_000] }],
      [PICKUP, { engine: [2], "minimal-wire": [1.6], "graphile-worker": [3] }],
    );
    const output = await table([first, second]);
    expect(cells(output, "figure")).toEqual([
      ...["engine", "minimal-wire", "graphile-worker", "graphile-worker-tuned", "pg-boss", "bullmq-redis"],
      ...["engine : best peer, defaults", "engine : best peer, any settings", "engine : minimal-wire"],
    ]);
    expect(cells(output, "drain, jobs/s")).toEqual([
      "24,000 (22,000 to 28,000)",
      "40,000 (40,000 to 40,000)",
      "2,200 (2,100 to 2,300)",
      "40,000 (40,000 to 40,000)",
      "1,000 (1,000 to 1,000)",
      "90,000 (90,000 to 90,000)",
      "10.00 (10.00 to 10.00) graphile-worker",
      "0.80 (0.80 to 0.80) graphile-worker-tuned",
      "0.60 (0.55 to 0.70)",
    ]);
    expect(cells(output, "pickup, p50, ms ↓")).toEqual([
      ...["2.00 (2.00 to 2.00)", "1.60 (1.60 to 1.60)", "3.00 (3.00 to 3.00)", "", "", ""],
      ...[
        "1.50 (1.50 to 1.50) graphile-worker",
        "1.50 (1.50 to 1.50) graphile-worker",
        "0.80 (0.80 to 0.80)",
      ],
    ]);
    expect(output).not.toContain("cost of a job");
  });

  it("prints the cost of a job with a large table, divided by its cost with a small table", async () => {
    const output = await table([
      reportOf(
        [SMALL, { engine: [10, 20], saq: [100, 100] }],
        [LARGE, { engine: [18, 18], saq: [250, 350] }],
      ),
    ]);
    expect(cells(output.slice(output.indexOf("cost of a job")), LARGE.figure)).toEqual(["1.20", "3.00"]);
  });

  it.each([
    ["a missing file", () => join(emptyFolder(), "drian.json"), "no such file"],
    ["a file that is not JSON", () => fileWith("drain: 20000"), "is not valid JSON"],
    ["a file without figures", () => fileWith('{"name":"app"}'), "it has no figures"],
  ])("exits with 1 for %s, and prints the reason and how to make a report", async (_, file, why) => {
    const path = file();
    const output = await table([reportOf([DRAIN, { engine: [1] }]), path], 1);
    expect(output).toContain(`${path}: `);
    expect(output).toContain(why);
    expect(output).toContain("node bench/run.js --json FILE");
    expect(output).not.toMatch(/^\| |^ +at /m);
  });

  it("exits with 2 and prints its usage when no file is given", async () => {
    expect(await table([], 2)).toContain("Usage: node bench/table.js FILE...");
  });
});
