/**
 * The recipe of docs/telemetry.md: the file that starts OpenTelemetry is loaded by the program, and by the threads and
 * processes that the program starts. test/e2e/telemetry.test.ts runs the whole recipe.
 */
import { cpSync, mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "@jest/globals";
import { codeBlocks, shellCommands } from "../../support/documents.js";
import { emptyFolder, writeTree } from "../../support/folders.js";
import { REPOSITORY } from "../../support/packed.js";
import { Program } from "../../support/program.js";

const document = readFileSync(join(REPOSITORY, "templates/docs/telemetry.md"), "utf8");
const commands = codeBlocks(document).flatMap(({ code }) => shellCommands(code));

it.each(["start", "start-worker"])("the script %s loads it in each process and thread", async (script) => {
  const setting = commands.find((command) => command.startsWith(`npm pkg set scripts.${script}=`));
  const [, command = ""] = /="node (.*)"$/.exec(String(setting)) ?? [];
  const root = emptyFolder();
  const program = `import { fork } from "node:child_process";
    import { Worker } from "node:worker_threads";
    if (process.argv[2] !== "child") {
      const file = new URL(import.meta.url);
      fork(file, ["child"]).once("exit", () => new Worker(new URL("../thread.js", file)));
    }\n`;
  writeTree(root, {
    "package.json": '{ "type": "module", "workspaces": ["backend"] }',
    "backend/package.json": '{ "name": "backend", "type": "module" }',
    "backend/telemetry.js": `import { isMainThread } from "node:worker_threads";
      console.log(\`loaded in a \${isMainThread ? "process" : "thread"}\`);\n`,
    "backend/dist/app/server.js": program,
    "backend/dist/app/worker.js": program,
    "backend/dist/thread.js": "",
  });
  cpSync(join(REPOSITORY, "templates/scripts"), join(root, "scripts"), { recursive: true });
  // As npm links a workspace.
  mkdirSync(join(root, "node_modules"));
  symlinkSync("../backend", join(root, "node_modules/backend"));
  const env = { ...process.env, NODE_OPTIONS: "" };
  const started = new Program([process.execPath, ...command.split(" ")], { cwd: root, env });
  expect(await started.ended(100_000)).toBe(0);
  expect(started.output).toBe("loaded in a process\nloaded in a process\nloaded in a thread\n");
});
