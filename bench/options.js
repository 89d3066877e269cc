// What the programs of this folder have in common at their command lines.
import fs from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";

/**
 * Answers what `resolve` makes of the options, or null when there is nothing to run: the help was asked for, or an
 * option was refused. `resolve` throws for what it refuses.
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

/** The names of a comma-separated list; "all" is every one that is known. */
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
