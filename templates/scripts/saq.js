// Runs the queue's command line, for example: node scripts/saq.js workers run. In development it runs the TypeScript
// source, in production the code that `make build` has compiled. It runs in this process and not in a child process, so
// that the workers receive signals directly.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { run } from "./failure.js";
import { whenOrphaned } from "./orphan.js";
import { findPackage, installMissing, missingPackages } from "./packages.js";

const root = path.dirname(import.meta.dirname);
const backend = path.join(root, "backend");
const program = path.join(backend, "saq/cli/main.ts");

/**
 * Returns true if the compiled code must be used. On a server the development packages are missing on purpose. Without
 * this check, one command would install 371 of them.
 */
function isProduction() {
  if (process.env.NODE_ENV === "production") return true;
  const isCompiled = fs.existsSync(path.join(backend, "dist/saq/cli/main.js"));
  const workspaces = ["backend"];
  return (
    isCompiled &&
    missingPackages(root, { workspaces }).length > 0 &&
    missingPackages(root, { production: true, workspaces }).length === 0
  );
}

if (isProduction()) {
  process.argv.splice(2, 0, "saq");
  await import("./start.js");
} else await runSource();

async function runSource() {
  await run(async () => {
    await installMissing(root, missingPackages(root, { workspaces: ["backend"] }));
  });
  if (process.exitCode !== 0) return;
  process.chdir(backend);
  process.setSourceMapsEnabled(true);
  whenOrphaned(() => process.kill(process.pid, "SIGTERM"));
  // Not loaded with require(): tsx's export for require() looks for its hooks in a folder that does not exist.
  const loader = path.join(findPackage("tsx", backend) ?? "", "dist/esm/api/index.mjs");
  (await import(pathToFileURL(loader).href)).register();
  process.argv.splice(1, 1, program);
  await import(pathToFileURL(program).href);
}
