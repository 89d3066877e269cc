import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** One file of the package's `templates/` folder. `path` is relative to that folder, with forward slashes. */
export interface TemplateFile {
  path: string;
  contents: Buffer;
}

// Files and folders that remain after the template was run, built or tested in place. package.json "files" excludes the
// same ones from the published package. Both lists are needed, because the command line also runs from a checkout.
const LEFT_BEHIND = new Set([
  "node_modules",
  "dist",
  "coverage",
  ".data",
  ".env",
  "package-lock.json",
  ".DS_Store",
]);
const LEFT_BEHIND_ENDINGS = [".tsbuildinfo", ".log"];

/** Reads all files of the template and returns them sorted by path. */
export function readTemplate(root: string): TemplateFile[] {
  const files: TemplateFile[] = [];
  const visit = (folder: string) => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      if (isLeftBehind(entry.name)) continue;
      const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory()) visit(path);
      else if (entry.isFile()) files.push({ path, contents: readFileSync(join(root, path)) });
    }
  };
  visit("");
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

function isLeftBehind(name: string): boolean {
  return LEFT_BEHIND.has(name) || LEFT_BEHIND_ENDINGS.some((ending) => name.endsWith(ending));
}
