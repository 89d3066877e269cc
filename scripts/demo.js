// Tries the package as a user does: packs it, and generates an application with the packed command line. `make demo`
// then runs `make dev-all` of that application. If the application already exists, it is used again.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import path from "node:path";

const root = path.resolve(import.meta.dirname, "..");
const demo = path.join(root, ".demo");
const app = path.join(demo, "app");

if (existsSync(path.join(app, "saq-app.json"))) {
  console.log("Using the application in .demo/app (delete that folder to generate it again).\n");
} else {
  mkdirSync(demo, { recursive: true });
  const tarball = timed("packed the command line", () => {
    const packed = run("npm", ["pack", "--silent", "--pack-destination", demo], { cwd: root, capture: true });
    return path.join(demo, packed.trim().split("\n").at(-1) ?? "");
  });
  timed("generated and installed the application", () => {
    run("npm", ["exec", "--yes", `--package=${tarball}`, "--", "create-saq-app", app, "--yes", "--no-git"], {
      cwd: demo,
    });
  });
}

/**
 * @param {string} command
 * @param {string[]} args
 * @param {{ cwd: string, capture?: boolean }} options
 */
function run(command, args, { cwd, capture = false }) {
  const stdio = capture ? ["ignore", "pipe", "inherit"] : "inherit";
  const result = spawnSync(command, args, {
    cwd,
    stdio,
    encoding: "utf8",
    shell: process.platform === "win32",
  });
  if (result.error) {
    console.error(`Could not run ${command}: ${result.error.message}`);
    process.exit(1);
  }
  if (result.status !== 0) process.exit(result.signal === "SIGINT" ? 130 : (result.status ?? 1));
  return result.stdout ?? "";
}

/**
 * @template T
 * @param {string} what
 * @param {() => T} work
 */
function timed(what, work) {
  const started = performance.now();
  const result = work();
  console.log(`[demo] ${what} in ${((performance.now() - started) / 1000).toFixed(1)} s\n`);
  return result;
}
