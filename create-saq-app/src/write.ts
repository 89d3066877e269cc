import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { CliError } from "./errors.js";
import type { PlannedFile } from "./plan.js";
import type { Target } from "./target.js";

/**
 * Writes the plan, all of it or nothing: first into a temporary folder beside the target, then moved into place by
 * renaming. Into a folder that exists the files are moved one by one, and moved back if one of them fails.
 *
 * Synchronous, so that no signal handler runs between two files; 200 files took 0.1 s.
 * @throws CliError when the file system refuses; nothing is left then
 */
export function writeProject(directory: string, plan: readonly PlannedFile[], target: Target): void {
  const undo: (() => void)[] = [];
  try {
    // A folder that exists may be another file system's root, where nothing beside it can be renamed into it.
    const home = target.exists ? directory : dirname(directory);
    makeFolder(home, undo);
    const temporary = mkdtempSync(join(home, ".create-saq-app-"));
    undo.push(() => rmSync(temporary, { recursive: true, force: true }));
    const written = plan.filter(({ path }) => !target.kept.includes(path));
    const fresh = join(temporary, "new");
    for (const file of written) writeFile(fresh, file);

    if (target.exists) {
      moveInto(directory, fresh, join(temporary, "old"), written, undo);
      rmSync(temporary, { recursive: true, force: true });
    } else {
      renameSync(fresh, directory);
      undo.push(() => rmSync(directory, { recursive: true, force: true }));
      rmdirSync(temporary);
    }
  } catch (error) {
    for (const step of undo.reverse()) step();
    throw refused(error, directory);
  }
}

function writeFile(root: string, { path, contents, mode }: PlannedFile): void {
  const destination = join(root, path);
  mkdirSync(dirname(destination), { recursive: true });
  writeFileSync(destination, contents, { mode });
  // The mode of a new file is cut by the umask, which may be stricter than git expects of a script.
  chmodSync(destination, mode);
}

function moveInto(
  directory: string,
  fresh: string,
  old: string,
  plan: readonly PlannedFile[],
  undo: (() => void)[],
): void {
  for (const { path } of plan) {
    const destination = join(directory, path);
    makeFolder(dirname(destination), undo);
    if (existsSync(destination)) {
      const saved = join(old, path);
      mkdirSync(dirname(saved), { recursive: true });
      renameSync(destination, saved);
      undo.push(() => renameSync(saved, destination));
    }
    renameSync(join(fresh, path), destination);
    undo.push(() => rmSync(destination, { force: true }));
  }
}

/** Makes a folder and its parents; undone, only the ones made here go, and only while empty. */
function makeFolder(directory: string, undo: (() => void)[]): void {
  if (existsSync(directory)) return;
  makeFolder(dirname(directory), undo);
  mkdirSync(directory);
  undo.push(() => {
    if (readdirSync(directory).length === 0) rmdirSync(directory);
  });
}

const REASONS: Record<string, string> = {
  EACCES: "permission denied",
  EPERM: "permission denied",
  EROFS: "the file system is read-only",
  ENOSPC: "the disk is full",
  EDQUOT: "the disk quota is used up",
  ENAMETOOLONG: "the name is too long for the file system",
  ENOTEMPTY: "it was filled by another program meanwhile",
  EEXIST: "it was made by another program meanwhile",
  ENOTDIR: "a parent of it is a file",
};

function refused(error: unknown, directory: string): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  const reason = code === undefined ? undefined : REASONS[code];
  if (reason === undefined) return error;
  return new CliError(`${directory} cannot be written: ${reason} (${code}). Nothing was left behind.`);
}
