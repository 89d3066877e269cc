// The benchmark compares the engine with the engine of an older commit.
import { spawnSync } from "node:child_process";
import { describe, expect, it } from "@jest/globals";
import { REPOSITORY } from "../support/packed.js";
import { runProgram } from "../support/program.js";
import { bareEnvironment } from "../support/run-cli.js";

const isRepository = spawnSync("git", ["rev-parse", "HEAD"], { cwd: REPOSITORY }).status === 0;

/** Runs `npm run bench -- --contestants engine,engine-before --baseline engine-before`, as short as possible. */
const bench = (commit: string, code: number) =>
  runProgram(
    [
      ..."npm run bench -- --contestants engine,engine-before --baseline engine-before".split(" "),
      ..."--scenario bulk --rounds 1 --jobs 200".split(" "),
    ],
    {
      cwd: REPOSITORY,
      env: { ...bareEnvironment(), BENCH_BEFORE: commit, npm_config_update_notifier: "false" },
      withinMs: 110_000,
      code,
    },
  );

describe("npm run bench with BENCH_BEFORE", () => {
  it("measures the engine of that commit in the same run", async () => {
    if (!isRepository) {
      console.log("skipped: this folder is no git repository, so that there is no older commit");
      return;
    }
    const output = await bench("HEAD", 0);
    expect(output).toMatch(/\| bulk enqueue \| jobs\/s \| engine \| .* \| \d+\.\d\d /);
    expect(output).toMatch(/\| bulk enqueue \| jobs\/s \| engine-before \| /);
  }, 600_000);

  it("fails with an error that names the commit when git does not know it", async () => {
    expect(await bench("no-such-commit", 1)).toContain(
      "BENCH_BEFORE=no-such-commit: the engine of that commit cannot be read",
    );
  }, 600_000);
});
