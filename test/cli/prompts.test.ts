import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "@jest/globals";
import prompts from "prompts";
import { main } from "../../create-saq-app/src/cli.js";
import { emptyFolder } from "../support/folders.js";
import { bareEnvironment } from "../support/run-cli.js";

let cwd: string;
let out: string;
let err: string;

/** Injected answers that no question has used. The package `prompts` keeps them and has no public way to read them. */
const leftOver = prompts as unknown as { _injected: unknown[] };

beforeEach(() => {
  leftOver._injected = [];
  cwd = emptyFolder();
  out = "";
  err = "";
});

function run(argv: readonly string[], answers: unknown[], interactive = true): Promise<number> {
  prompts.inject(answers);
  return main(argv, {
    cwd,
    env: bareEnvironment(),
    platform: "linux",
    interactive,
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
  });
}

describe("the command line", () => {
  it("asks four questions and uses the answers", async () => {
    expect(await run(["--no-git"], ["my-app", false, "embedded", false, "not asked"])).toBe(0);
    expect(leftOver._injected).toEqual(["not asked"]);
    expect(readFileSync(join(cwd, "my-app/.env"), "utf8")).toMatch(/^DB_MODE=embedded$/m);
    expect(existsSync(join(cwd, "my-app/frontend"))).toBe(false);
    expect(existsSync(join(cwd, "my-app/node_modules"))).toBe(false);
  });

  it.each([
    ["the folder when an argument names it", ["my-app"], [true, "auto", false]],
    ["the front end when a flag decides it", ["--no-frontend"], ["my-app", "auto", false]],
    ["the database when a flag decides it", ["--db", "docker"], ["my-app", true, false]],
    ["the install when a flag decides it", ["--no-install"], ["my-app", true, "auto"]],
    ["anything with --yes", ["--yes", "my-app"], []],
    ["anything with --json", ["--json", "my-app"], []],
  ])("does not ask about %s", async (_, flags, answers) => {
    expect(await run([...flags, "--dry-run"], [...answers, "not asked"])).toBe(0);
    expect(leftOver._injected).toEqual(["not asked"]);
    expect(out).toContain(join(cwd, "my-app"));
  });

  it("exits with 130 and writes nothing when the user cancels a question", async () => {
    expect(await run([], ["my-app", new Error("cancelled")])).toBe(130);
    expect(err).toBe("Stopped. Nothing was written.\n");
    expect(readdirSync(cwd)).toEqual([]);
  });

  it("refuses a wrong flag before it asks anything", async () => {
    expect(await run(["--port", "x"], ["not asked"])).toBe(2);
    expect(leftOver._injected).toEqual(["not asked"]);
  });

  it("asks nothing without a terminal", async () => {
    expect(await run(["--dry-run"], ["not asked"], false)).toBe(0);
    expect(leftOver._injected).toEqual(["not asked"]);
    expect(out).toContain("--no-frontend");
  });
});
