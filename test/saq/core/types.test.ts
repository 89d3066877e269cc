import { spawnSync } from "node:child_process";
import { expect, it } from "@jest/globals";

it("the compiler checks payloads, results, options, task names and queue names", () => {
  const { status, stdout } = spawnSync(
    process.execPath,
    ["node_modules/typescript/bin/tsc", "-p", "test/saq/core/types/tsconfig.json"],
    { encoding: "utf8" },
  );
  expect(stdout).toBe("");
  expect(status).toBe(0);
}, 600_000);
