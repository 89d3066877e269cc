import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** One file of the package's `templates/` folder. `path` is relative to that folder, with forward slashes. */
export interface TemplateFile {
  path: string;
  contents: Buffer;
}

// Files and folders that appear when the template is run, built or tested in place. package.json "files" excludes the
// same ones from the published package. Both lists are needed, because the command line also runs from a checkout.
const EXCLUDED_NAMES = new Set([
  "node_modules",
  "dist",
  "coverage",
  ".data",
  ".env",
  "package-lock.json",
  ".DS_Store",
]);
const EXCLUDED_SUFFIXES = [".tsbuildinfo", ".log"];

/** Reads all files of the template and returns them sorted by path. */
export function readTemplate(root: string): TemplateFile[] {
  const files: TemplateFile[] = [];
  const visit = (folder: string) => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      if (isExcluded(entry.name)) continue;
      const path = folder === "" ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory()) visit(path);
      else if (entry.isFile()) files.push({ path, contents: readFileSync(join(root, path)) });
    }
  };
  visit("");
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

function isExcluded(name: string): boolean {
  return EXCLUDED_NAMES.has(name) || EXCLUDED_SUFFIXES.some((suffix) => name.endsWith(suffix));
}
