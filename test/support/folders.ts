import { mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { runFolder } from "./run-folder.js";

/** Creates an empty folder, which is removed with the run's folder. */
export function emptyFolder(): string {
  return mkdtempSync(join(runFolder(), "case-"));
}

export function writeTree(root: string, files: Record<string, string>): void {
  for (const [path, contents] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), contents);
  }
}

export interface FileOnDisk {
  contents: Buffer;
  /** Permission bits, as in `0o644`. */
  mode: number;
}

/** Returns the files below `root` by their paths with forward slashes, without `.git` and `node_modules`. */
export function readTree(root: string): Map<string, FileOnDisk> {
  const found: [string, FileOnDisk][] = [];
  const visit = (folder: string) => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      if (entry.name === ".git" || entry.name === "node_modules") continue;
      const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
      const full = join(root, path);
      if (entry.isDirectory()) visit(path);
      else found.push([path, { contents: readFileSync(full), mode: statSync(full).mode & 0o777 }]);
    }
  };
  visit("");
  return new Map(found.sort(([a], [b]) => (a < b ? -1 : 1)));
}
