// Runs a compiled program in production mode: node scripts/start.js server|worker, or saq with its arguments.
// The program runs in this process and not in a child process, so that it receives signals directly.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { whenOrphaned } from "./orphan.js";
import { missingPackages } from "./packages.js";

const root = path.dirname(import.meta.dirname);
const backend = path.join(root, "backend");
const [name, ...args] = process.argv.slice(2);
const program = path.join(backend, "dist", name === "saq" ? "saq/cli/main.js" : `app/${name}.js`);

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
  process.argv.splice(1, Number.POSITIVE_INFINITY, program, ...args);
  whenOrphaned(() => process.kill(process.pid, "SIGTERM"));
  await import(pathToFileURL(program).href);
}
