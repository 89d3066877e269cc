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

(terminalAvailable ? describe : describe.skip)("on a real terminal", () => {
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

  it("four questions, answered", async () => {
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

  it("a bad folder is asked for again, with the reason", async () => {
    const result = await run(
      ["--no-git", "--no-install", "--no-frontend", "--db", "auto"],
      [
        ["Folder of the new project", `../x${ENTER}`],
        ['holds ".."', `\b\b\b\bgood${ENTER}`],
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
    'Ctrl-C at "%s": exit code 130, nothing left, and the cursor is back',
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

  it("Ctrl-C during npm install: exit code 130, the project is kept", async () => {
    const npm = "#!/bin/sh\ntrap '' INT\necho installing now\nwhile true; do sleep 1; done\n";
    const result = await run(["app", "--yes"], [["installing now", CTRL_C]], bareEnvironment({ npm }));
    expect(result.code).toBe(130);
    expect(result.output).toContain("The project is kept in app");
    expect(existsSync(join(cwd, "app/package.json"))).toBe(true);
  }, 600_000);
});
