import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative, sep } from "node:path";

/** An npm workspace that a folder would become a part of. */
export interface EnclosingWorkspace {
  /** The folder of its package.json. */
  root: string;
  /** The entry of `workspaces` that takes the folder in. */
  pattern: string;
}

/**
 * Looks for a folder above whose `workspaces` take this one in. npm then works on that folder instead of the project,
 * whose own workspaces it ignores: nothing of them is installed, and `npm run build --workspaces` runs itself.
 */
export function findEnclosingWorkspace(directory: string): EnclosingWorkspace | undefined {
  for (let root = dirname(directory); ; root = dirname(root)) {
    const pattern = takingIn(workspacesOf(root), relative(root, directory).split(sep).join("/"));
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
    // npm will say what is wrong with that file.
    return [];
  }
}

/** The last entry decides, as in npm: one with `!` takes out again what others have taken in. */
function takingIn(patterns: readonly string[], path: string): string | undefined {
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
    if (part.startsWith("{")) return `(?:${part.slice(1, -1).split(",").map(escaped).join("|")})`;
    return escaped(part);
  });
  return new RegExp(`^${source.join("")}$`);
}

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
