// Runs a compiled process in production mode: node scripts/start.js server|worker
// In this process, so that a signal reaches the application itself with nothing in between.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { whenOrphaned } from "./orphan.js";

const backend = path.join(path.dirname(import.meta.dirname), "backend");
const program = path.join(backend, "dist/app", `${process.argv[2]}.js`);

if (fs.existsSync(program)) {
  process.env.NODE_ENV ??= "production";
  process.setSourceMapsEnabled(true);
  process.chdir(backend);
  whenOrphaned(() => process.kill(process.pid, "SIGTERM"));
  await import(pathToFileURL(program).href);
} else {
  console.error("The application is not compiled yet. Run: make build");
  process.exitCode = 1;
}
