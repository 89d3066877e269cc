// The engine as it runs in production: compiled by tsc. Run through a loader it would be measured with the loader.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const here = import.meta.dirname;
const outDir = path.join(here, ".build", "engine");

/** Compiles `templates/backend/saq` into `.build/engine`. */
export function buildEngine() {
  fs.rmSync(outDir, { recursive: true, force: true });
  const compiler = path.join(
    path.dirname(createRequire(import.meta.url).resolve("typescript/package.json")),
    "bin",
    "tsc",
  );
  const result = spawnSync(process.execPath, [compiler, "-p", path.join(here, "tsconfig.engine.json")], {
    encoding: "utf8",
  });
  if (result.status !== 0) throw new Error(`The engine does not compile:\n${result.stdout}${result.stderr}`);
}

/** A compiled module of the engine, by its path below `saq/`. */
export const importEngine = (file) => import(path.join(outDir, file));
