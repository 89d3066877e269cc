// Functions for command lines that the programs of this folder share.
import fs from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";

/**
 * Parses the command line and returns the result of `resolve` for its options. Returns null if there is nothing to run,
 * because the help was printed or an option was refused. `resolve` throws if it refuses an option.
 */
export function readOptions({ program, help, options, resolve }) {
  try {
    const { values } = parseArgs({
      options: { ...options, help: { type: "boolean", short: "h", default: false } },
    });
    if (!values.help) return resolve(values);
    process.stdout.write(help);
  } catch (error) {
    process.stderr.write(`${error.message}\nnode ${program} --help shows what there is.\n`);
    process.exitCode = 2;
  }
  return null;
}

/**
 * Returns the names in a comma-separated list. "all" stands for all known names.
 *
 * @throws Error if a name is not known
 */
export function pickFrom(known, list, option) {
  const names = list === "all" ? known : list.split(",").map((name) => name.trim());
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new Error(`--${option}: "${unknown}" is none of ${known.join(", ")}.`);
  return [...new Set(names)];
}

export function whole(name, value) {
  if (!/^[1-9]\d{0,8}$/.test(value)) throw new Error(`--${name}: a whole number above 0, not "${value}".`);
  return Number(value);
}

export function writeJson(file, value) {
  fs.mkdirSync(path.dirname(path.resolve(file)), { recursive: true });
  fs.writeFileSync(file, `${JSON.stringify(value, null, 2)}\n`);
}
