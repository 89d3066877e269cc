// Runs a compiled process in production mode: node scripts/start.js server|worker
// In this process, so that a signal reaches the application itself with nothing in between.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { whenOrphaned } from "./orphan.js";
import { missingPackages } from "./packages.js";

const root = path.dirname(import.meta.dirname);
const backend = path.join(root, "backend");
const program = path.join(backend, "dist/app", `${process.argv[2]}.js`);

if (!fs.existsSync(program)) {
  console.error("The application is not compiled yet. Run: make build");
  process.exitCode = 1;
} else if (missingPackages(root, { production: true, workspaces: ["backend"] }).length > 0) {
  console.error("The dependencies are not installed. Run: npm install");
  process.exitCode = 1;
} else {
  process.env.NODE_ENV ??= "production";
  process.setSourceMapsEnabled(true);
  process.chdir(backend);
  whenOrphaned(() => process.kill(process.pid, "SIGTERM"));
  await import(pathToFileURL(program).href);
}
