import { execFileSync } from "node:child_process";
import { dirname, join } from "node:path";
import { oncePerRun } from "./once.js";
import { runProgram } from "./program.js";

/** The oldest Node.js on which the 3.x line of OpenTelemetry's SDK runs. */
const [wantedMajor, wantedMinor] = [22, 15];

/**
 * Returns the folder of a Node.js of 22.15 or later: that of this process, or one from the npm registry. Returns the
 * reason if there is none.
 */
export async function modernNode(): Promise<{ folder: string } | { missing: string }> {
  if (isModern(process.versions.node)) return { folder: dirname(process.execPath) };
  const name = `node-${process.platform}-${process.arch}`;
  try {
    return await oncePerRun("modern-node", 300_000, async (cwd) => {
      const command = ["npm", "install", "--prefix", cwd, "--no-audit", "--no-fund", `${name}@24`];
      await runProgram(command, { cwd, env: process.env, withinMs: 240_000 });
      const folder = join(cwd, "node_modules", name, "bin");
      const version = execFileSync(join(folder, "node"), ["--version"], { encoding: "utf8" });
      if (!isModern(version.slice(1))) throw new Error(`${name} is Node.js ${version}`);
      return { folder };
    });
  } catch (error) {
    const [reason] = (error as Error).message.split("\n");
    return {
      missing: `this is Node.js ${process.versions.node}, and ${name}@24 does not install: ${reason}`,
    };
  }
}

function isModern(version: string): boolean {
  const [major = 0, minor = 0] = version.split(".").map(Number);
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}
