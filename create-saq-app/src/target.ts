import { existsSync, lstatSync, readdirSync, readFileSync, type Stats } from "node:fs";
import { delimiter, dirname, join, relative, sep } from "node:path";
import { CliError } from "./errors.js";
import type { PlannedFile } from "./plan.js";
import { findEnclosingWorkspace } from "./workspace.js";

/** The present state of the target folder, and what the plan would change in it. */
export interface Target {
  exists: boolean;
  /** Files of the plan that exist with different contents and would be replaced. */
  overwritten: string[];
  /** Files of the plan that exist and are never replaced. */
  kept: string[];
}

/** A folder that contains only these names counts as empty: the files of a new clone and the settings of editors. */
const ALLOWED_NAMES = new Set([
  ".DS_Store",
  ".git",
  ".gitattributes",
  ".github",
  ".gitignore",
  ".idea",
  ".vscode",
  "LICENSE",
  "README.md",
  "Thumbs.db",
  "docs",
]);

/** Files that are never replaced. .env has the only copy of the password without which the database cannot be used. */
const NEVER_REPLACED = new Set([".env"]);

/**
 * Checks that the plan can be written into a folder, and returns the folder's state. It only reads.
 * @throws CliError that names the conflicting files
 */
export function checkTarget(directory: string, plan: readonly PlannedFile[], force: boolean): Target {
  const exists = checkFolder(directory);
  if (!exists) return { exists, overwritten: [], kept: [] };

  const existing = plan.filter(({ path }) => existsInside(directory, path));
  if (!force) {
    const others = readdirSync(directory).filter((name) => !ALLOWED_NAMES.has(name));
    const conflicts = [...new Set([...others, ...existing.map(({ path }) => path)])].sort();
    if (conflicts.length > 0) throw notEmpty(directory, conflicts);
  }
  return {
    exists,
    overwritten: existing
      .filter(
        ({ path, contents }) =>
          !NEVER_REPLACED.has(path) && !readFileSync(join(directory, path)).equals(contents),
      )
      .map(({ path }) => path),
    kept: existing.filter(({ path }) => NEVER_REPLACED.has(path)).map(({ path }) => path),
  };
}

/**
 * Returns true if the folder exists, and false if nothing exists at this path.
 * @throws CliError if the path is not a folder, if a parent of it is a file, or if an application would not work there
 */
export function checkFolder(directory: string): boolean {
  checkPath(directory);
  const found = statOf(directory);
  if (found?.isSymbolicLink()) {
    throw new CliError(`${directory} is a symbolic link. Give the folder it points to, or another name.`);
  }
  if (found && !found.isDirectory()) throw new CliError(`${directory} is a file. Give another name.`);
  return found !== undefined;
}

function checkPath(directory: string): void {
  const character = /[#?]/.exec(directory)?.[0];
  if (character !== undefined) {
    throw new CliError(
      `The path ${directory} contains "${character}". Vite reads a path as a URL and would cut it off there. ` +
        "Choose a folder without this character in its path.",
    );
  }
  if (delimiter === ":" && directory.includes(":")) {
    throw new CliError(
      `The path ${directory} contains ":", which separates folders in PATH. ` +
        "npm would not find the project's programs. Choose a folder without this character in its path.",
    );
  }
  const workspace = findEnclosingWorkspace(directory);
  if (workspace) {
    const path = relative(workspace.root, directory).split(sep).join("/");
    throw new CliError(
      `${directory} would be part of the npm workspace in ${workspace.root} (its package.json has ` +
        `"${workspace.pattern}"). npm would then ignore the application's own workspaces, and could not install or ` +
        `build it. Choose a folder outside of the workspace, or add "!${path}" to the workspaces in that package.json.`,
    );
  }
}

// Every folder on the path is checked separately, because a symbolic link would lead the files out of the target
// folder.
function existsInside(directory: string, path: string): boolean {
  const steps = path.split("/");
  for (let depth = 1; depth <= steps.length; depth++) {
    const step = join(directory, ...steps.slice(0, depth));
    const found = statOf(step);
    if (found === undefined) return false;
    const wanted = depth === steps.length ? "file" : "folder";
    const fits = wanted === "file" ? found.isFile() : found.isDirectory();
    if (!fits) {
      throw new CliError(
        `${step} must be a ${wanted}, but it is ${kindOf(found)}. Move it away, or give another folder.`,
      );
    }
  }
  return true;
}

function statOf(path: string): Stats | undefined {
  try {
    return lstatSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    if (code === "ENOTDIR") throw new CliError(`${fileAbove(path)} is a file, so ${path} cannot be created.`);
    if (code === "ENAMETOOLONG") throw new CliError("The folder's name is too long for the file system.");
    if (code === "EACCES") throw new CliError(`${path} cannot be read: permission denied.`);
    throw error;
  }
}

function fileAbove(path: string): string {
  let above = dirname(path);
  while (!existsSync(above)) above = dirname(above);
  return above;
}

function kindOf(found: Stats): string {
  if (found.isSymbolicLink()) return "a symbolic link";
  return found.isDirectory() ? "a folder" : "a file";
}

function notEmpty(directory: string, conflicts: readonly string[]): CliError {
  const shown = conflicts.slice(0, 12).map((path) => `  ${path}`);
  if (conflicts.length > shown.length) shown.push(`  and ${conflicts.length - shown.length} more`);
  return new CliError(
    `${directory} is not empty. Conflicts:\n${shown.join("\n")}\n` +
      "Give another folder, or add --force to write into this one: it deletes nothing and lists what it replaces.",
  );
}
