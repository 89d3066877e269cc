// Compiles the engine with tsc, as it runs in production. With a loader, the measurement would include the loader.
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const here = import.meta.dirname;
const buildDir = path.join(here, ".build");
const enginePath = "templates/backend/saq";

/** Compiles `templates/backend/saq` of the work tree. */
export const buildEngine = () => compile("engine", path.join(here, "..", enginePath));

/**
 * Compiles the engine of an older commit, so that one run can compare a change with it.
 *
 * @throws Error if git does not know the commit, or if the engine does not compile
 */
export function buildEngineOf(commit) {
  const source = path.join(buildDir, "before-source");
  fs.rmSync(source, { recursive: true, force: true });
  fs.mkdirSync(source, { recursive: true });
  const archive = spawnSync("git", ["archive", "--format=tar", commit, enginePath], {
    cwd: path.join(here, ".."),
    maxBuffer: 2 ** 26,
  });
  if (archive.status !== 0) {
    const reason = String(archive.stderr ?? archive.error).trim();
    throw new Error(`BENCH_BEFORE=${commit}: the engine of that commit cannot be read: ${reason}`);
  }
  execFileSync("tar", ["-xf", "-", "-C", source], { input: archive.stdout });
  compile("before", path.join(source, enginePath));
}

function compile(name, source) {
  const outDir = path.join(buildDir, name);
  fs.rmSync(outDir, { recursive: true, force: true });
  const project = path.join(buildDir, `tsconfig.${name}.json`);
  fs.mkdirSync(buildDir, { recursive: true });
  const options = { rootDir: source, outDir, typeRoots: [path.join(here, "../node_modules/@types")] };
  fs.writeFileSync(
    project,
    JSON.stringify({
      extends: "../tsconfig.engine.json",
      compilerOptions: options,
      include: [`${source}/**/*.ts`],
    }),
  );
  const compiler = path.join(
    path.dirname(createRequire(import.meta.url).resolve("typescript/package.json")),
    "bin",
    "tsc",
  );
  const result = spawnSync(process.execPath, [compiler, "-p", project], { encoding: "utf8" });
  if (result.status !== 0)
    throw new Error(`The engine (${name}) does not compile:\n${result.stdout}${result.stderr}`);
}

/** Imports a compiled module of the engine. `file` is its path below `saq/`, `build` is "engine" or "before". */
export const importEngine = (file, build = "engine") => import(path.join(buildDir, build, file));
