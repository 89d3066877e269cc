// The queue's command line: node scripts/saq.js workers run. As TypeScript, or in production what `make build`
// compiled. In this process, so that a signal reaches the workers with nothing in between.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { run } from "./failure.js";
import { whenOrphaned } from "./orphan.js";
import { findPackage, installMissing, missingPackages } from "./packages.js";

const root = path.dirname(import.meta.dirname);
const backend = path.join(root, "backend");
const program = path.join(backend, "saq/cli/main.ts");

/** On a server the packages of development are missing on purpose: 371 of them would be installed for one command. */
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
  // Not by require: what tsx exports to it looks for its hooks in a folder that is not there.
  const loader = path.join(findPackage("tsx", backend) ?? "", "dist/esm/api/index.mjs");
  (await import(pathToFileURL(loader).href)).register();
  process.argv.splice(1, 1, program);
  await import(pathToFileURL(program).href);
}
