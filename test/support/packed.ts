import { execFile } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { oncePerRun } from "./once.js";

const run = promisify(execFile);
export const REPOSITORY = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

export interface PackedCli {
  /** The `.tgz` as it would be published. */
  tarball: string;
  /** Folder of the installed package, outside the repository. */
  root: string;
  /** The installed command. */
  bin: string;
  /** Paths inside the tarball. */
  files: string[];
}

/**
 * Returns the packed and installed command line, which is made once per jest run: two builds at the same time would
 * empty and fill the same dist/.
 */
export function packedCli(): Promise<PackedCli> {
  return oncePerRun("packed", 120_000, pack);
}

async function pack(folder: string): Promise<PackedCli> {
  const packed = await run("npm", ["pack", "--json", "--pack-destination", folder], { cwd: REPOSITORY });
  const list = JSON.parse(packed.stdout.slice(packed.stdout.indexOf("["))) as [
    { filename: string; files: { path: string }[] },
  ];
  const tarball = join(folder, list[0].filename);
  const home = join(folder, "installed");
  await mkdir(home);
  // Offline: the package must need nothing from a registry.
  await run("npm", ["install", "--offline", "--no-audit", "--no-fund", tarball], { cwd: home });
  return {
    tarball,
    root: join(home, "node_modules/create-saq-app"),
    bin: join(home, "node_modules/.bin/create-saq-app"),
    files: list[0].files.map(({ path }) => path),
  };
}
