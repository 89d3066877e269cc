// The queue's command line for development, as TypeScript: node scripts/saq.js workers run
// In this process, so that a signal reaches the workers with nothing in between.
import path from "node:path";
import { pathToFileURL } from "node:url";
import { run } from "./failure.js";
import { whenOrphaned } from "./orphan.js";
import { findPackage, installMissing, missingPackages } from "./packages.js";

const root = path.dirname(import.meta.dirname);
const backend = path.join(root, "backend");
const program = path.join(backend, "saq/cli/main.ts");

await run(async () => {
  await installMissing(root, missingPackages(root, { workspaces: ["backend"] }));
});
if (process.exitCode === 0) {
  process.chdir(backend);
  process.setSourceMapsEnabled(true);
  whenOrphaned(() => process.kill(process.pid, "SIGTERM"));
  // Not by require: what tsx exports to it looks for its hooks in a folder that is not there.
  const loader = path.join(findPackage("tsx", backend) ?? "", "dist/esm/api/index.mjs");
  (await import(pathToFileURL(loader).href)).register();
  process.argv.splice(1, 1, program);
  await import(pathToFileURL(program).href);
}
