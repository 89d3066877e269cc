/** Compiles the engine and the programs of these tests to plain JavaScript, as `npm run build` does. */
import { symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { REPOSITORY } from "../../../support/packed.js";
import { runProgram } from "../../../support/program.js";

/**
 * Compiles into `folder`. The files have the same paths below it as below the repository.
 * @param more further files or patterns, relative to the repository
 */
export async function compileInto(folder: string, more: readonly string[] = []): Promise<void> {
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  symlinkSync(join(REPOSITORY, "node_modules"), join(folder, "node_modules"));
  const config = {
    extends: join(REPOSITORY, "templates/backend/tsconfig.json"),
    compilerOptions: {
      noEmit: false,
      outDir: folder,
      rootDir: REPOSITORY,
      typeRoots: [join(REPOSITORY, "node_modules/@types")],
    },
    files: ["worker.ts", "cli-app.ts", "cli-config.ts"].map((name) =>
      join(REPOSITORY, "test/saq/support/processes", name),
    ),
    include: ["templates/backend/saq/**/*.ts", ...more].map((pattern) => join(REPOSITORY, pattern)),
  };
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(config));
  const compiler = join(REPOSITORY, "node_modules/typescript/bin/tsc");
  const command = [process.execPath, compiler, "-p", folder];
  await runProgram(command, { cwd: REPOSITORY, env: process.env, withinMs: 240_000 });
}
