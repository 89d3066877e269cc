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
 * Writes the planned files, either all of them or none. It first writes them into a temporary folder. If the target
 * does not exist, the temporary folder is next to it, and is renamed to it. If the target exists, the temporary folder
 * is inside it, and the files are moved one by one; if one move fails, all files are moved back.
 *
 * The function is synchronous, so that no signal handler runs between two files; 200 files took 0.1 s.
 * @throws CliError if the file system refuses an operation; nothing is left behind then
 */
export function writeProject(directory: string, plan: readonly PlannedFile[], target: Target): void {
  const undo: (() => void)[] = [];
  try {
    // An existing target may be the root of another file system. Files next to it could not be renamed into it then, so
    // the temporary folder is created inside the target.
    const parent = target.exists ? directory : dirname(directory);
    makeFolder(parent, undo);
    const temporary = mkdtempSync(join(parent, ".create-saq-app-"));
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
    throw toCliError(error, directory);
  }
}

function writeFile(root: string, { path, contents, mode }: PlannedFile): void {
  const destination = join(root, path);
  mkdirSync(dirname(destination), { recursive: true });
  writeFileSync(destination, contents, { mode });
  // The umask limits the mode of a new file, and it may remove the execute permission that git expects of a script.
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

/** Creates a folder and its missing parents. The undo step deletes only folders created here, and only if empty. */
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
  ENOTEMPTY: "another program wrote into it in the meantime",
  EEXIST: "another program created it in the meantime",
  ENOTDIR: "a parent of it is a file",
};

function toCliError(error: unknown, directory: string): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  const reason = code === undefined ? undefined : REASONS[code];
  if (reason === undefined) return error;
  return new CliError(`${directory} cannot be written: ${reason} (${code}). All changes were undone.`);
}
