import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "@jest/globals";
import { runInOwnSession } from "../../templates/scripts/own-session.js";
import { emptyFolder } from "../support/folders.js";

it("a program that Ctrl-C ends before it has begun is started again, however often that happens", () => {
  const runs = join(emptyFolder(), "runs");
  const program = 'echo run >> "$0"; [ "$(wc -l < "$0")" -ge 4 ] || kill -INT $$; echo done';
  const { status, stdout } = runInOwnSession("/bin/sh", ["-c", program, runs], { encoding: "utf8" });
  expect({ status, stdout }).toEqual({ status: 0, stdout: "done\n" });
  expect(readFileSync(runs, "utf8")).toBe("run\n".repeat(4));
});
