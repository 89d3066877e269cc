import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";

/** An npm workspace that would include a folder. */
export interface EnclosingWorkspace {
  /** The folder of the workspace's package.json. */
  root: string;
  /** The entry of `workspaces` that includes the folder. */
  pattern: string;
}

/**
 * Looks for a parent folder whose `workspaces` include this folder. There npm works on the parent folder and
 * ignores the project's own workspaces: it installs nothing for them, and `npm run build --workspaces` runs itself.
 */
export function findEnclosingWorkspace(directory: string): EnclosingWorkspace | undefined {
  for (let root = dirname(directory); ; root = dirname(root)) {
    const pattern = matchingPattern(workspacesOf(root), relative(root, directory).split(sep).join("/"));
    if (pattern !== undefined) return { root, pattern };
    if (root === dirname(root)) return undefined;
  }
}

function workspacesOf(folder: string): string[] {
  const file = join(folder, "package.json");
  if (!existsSync(file)) return [];
  try {
    const { workspaces } = JSON.parse(readFileSync(file, "utf8")) as { workspaces?: unknown };
    const list = Array.isArray(workspaces) ? workspaces : (workspaces as { packages?: unknown })?.packages;
    return Array.isArray(list) ? list.filter((entry) => typeof entry === "string") : [];
  } catch {
    // npm itself reports what is wrong with that file.
    return [];
  }
}

/**
 * Returns the entry that includes `path`, or undefined. As in npm, the last matching entry decides; an entry with `!`
 * excludes what previous entries have included.
 */
function matchingPattern(patterns: readonly string[], path: string): string | undefined {
  return patterns.reduce<string | undefined>((found, pattern) => {
    if (!toRegExp(pattern.replace(/^!+/, "")).test(path)) return found;
    return pattern.startsWith("!") ? undefined : pattern;
  }, undefined);
}

function toRegExp(glob: string): RegExp {
  const parts = glob
    .replace(/^\.?\/+/, "")
    .replace(/\/+$/, "")
    .split(/(\*\*\/?|\*|\?|\{[^{}]*\})/);
  const source = parts.map((part) => {
    if (part.startsWith("**")) return part.endsWith("/") ? "(?:[^/]+/)*" : ".*";
    if (part === "*") return "[^/]*";
    if (part === "?") return "[^/]";
    if (part.startsWith("{")) return `(?:${part.slice(1, -1).split(",").map(escapeRegExp).join("|")})`;
    return escapeRegExp(part);
  });
  return new RegExp(`^${source.join("")}$`);
}

const escapeRegExp = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
