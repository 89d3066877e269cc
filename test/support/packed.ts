import { execFile } from "node:child_process";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { runFolder } from "./run-folder.js";

const run = promisify(execFile);
export const REPOSITORY = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

export interface PackedCli {
  /** The `.tgz` as it would be published. */
  tarball: string;
  /** Where it was installed, outside the repository. */
  root: string;
  /** The installed command. */
  bin: string;
  /** Paths inside the tarball. */
  files: string[];
}

/**
 * The packed and installed command line, made once per jest run: the first test file to ask makes it, the others wait.
 * Building twice at once would have two processes empty and fill the same dist/.
 */
export async function packedCli(): Promise<PackedCli> {
  const folder = join(runFolder(), "packed");
  const answer = join(folder, "answer.json");
  try {
    await mkdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return opened(JSON.parse(await appeared(answer)) as Outcome);
  }
  let outcome: Outcome;
  try {
    outcome = await pack(folder);
  } catch (error) {
    outcome = { failure: String(error) };
  }
  await writeFile(`${answer}.part`, JSON.stringify(outcome));
  await rename(`${answer}.part`, answer);
  return opened(outcome);
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

type Outcome = PackedCli | { failure: string };

function opened(outcome: Outcome): PackedCli {
  if ("failure" in outcome) throw new Error(outcome.failure);
  return outcome;
}

async function appeared(path: string): Promise<string> {
  const deadline = Date.now() + 120_000;
  while (Date.now() < deadline) {
    try {
      return await readFile(path, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
    await sleep(100);
  }
  throw new Error(`The packed command line was not ready within 120 s (${path}).`);
}
