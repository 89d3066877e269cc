import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, beforeEach, describe, expect, it } from "@jest/globals";
import { emptyFolder } from "../support/folders.js";
import { packedCli } from "../support/packed.js";
import { bareEnvironment } from "../support/run-cli.js";
import { runInTerminal, terminalAvailable } from "../support/terminal.js";

const CTRL_C = "\u0003";
const ENTER = "\r";

if (!terminalAvailable)
  console.warn("Skipped: tests on a real terminal need python3 3.9 or newer with its pty module.");

(terminalAvailable ? describe : describe.skip)("the command line on a real terminal", () => {
  let cwd: string;
  let bin: string;

  beforeAll(async () => {
    ({ bin } = await packedCli());
  }, 600_000);

  beforeEach(() => {
    cwd = emptyFolder();
  });

  const run = (args: string[], steps: [string, string][], env = bareEnvironment()) =>
    runInTerminal([process.execPath, bin, ...args], steps, { cwd, env });

  it("asks four questions and uses the answers", async () => {
    const result = await run(
      ["--no-git"],
      [
        ["Folder of the new project", `shop${ENTER}`],
        ["Add a front end", "n"],
        ["PostgreSQL for development", ENTER],
        ["Install the dependencies now", "n"],
      ],
    );
    expect(result.code).toBe(0);
    expect(result.output).toContain("make dev-all");
    expect(readdirSync(cwd)).toEqual(["shop"]);
    expect(existsSync(join(cwd, "shop/frontend"))).toBe(false);
  }, 600_000);

  it("asks again for a folder that it refuses, and shows the reason", async () => {
    const result = await run(
      ["--no-git", "--no-install", "--no-frontend", "--db", "auto"],
      [
        ["Folder of the new project", `../x${ENTER}`],
        ['contains ".."', `\b\b\b\bgood${ENTER}`],
      ],
    );
    expect(result.code).toBe(0);
    expect(readdirSync(cwd)).toEqual(["good"]);
  }, 600_000);

  it.each([
    "Folder of the new project",
    "Add a front end",
    "PostgreSQL for development",
    "Install the dependencies",
  ])(
    'exits with 130 on Ctrl-C at "%s", writes nothing and shows the cursor again',
    async (question) => {
      const all = [
        "Folder of the new project",
        "Add a front end",
        "PostgreSQL for development",
        "Install the dependencies",
      ];
      const before = all.slice(0, all.indexOf(question)).map((text): [string, string] => [text, ENTER]);
      const result = await run([], [...before, [question, CTRL_C]]);
      expect(result.code).toBe(130);
      expect(result.output).toContain("Stopped. Nothing was written.");
      expect(result.output.lastIndexOf("\u001b[?25h")).toBeGreaterThan(
        result.output.lastIndexOf("\u001b[?25l"),
      );
      expect(readdirSync(cwd)).toEqual([]);
    },
    120_000,
  );

  it("exits with 130 on Ctrl-C during npm install, and keeps the project", async () => {
    const npm = "#!/bin/sh\ntrap '' INT\necho installing now\nwhile true; do sleep 1; done\n";
    const result = await run(["app", "--yes"], [["installing now", CTRL_C]], bareEnvironment({ npm }));
    expect(result.code).toBe(130);
    expect(result.output).toContain("The project is kept in app");
    expect(existsSync(join(cwd, "app/package.json"))).toBe(true);
  }, 600_000);
});
