// The settings of the application: `.env` in its root, under what the real environment says.
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { parseEnv } from "node:util";

/** Kept from being read by other users: it holds the database's password. */
const MODE = 0o600;
const FIRST_DATABASE_PORT = "55432";

/** @type {typeof import("./env.js").readEnv} */
export function readEnv(root) {
  const merged = { ...readFile(root), ...process.env };
  return Object.fromEntries(
    Object.entries(merged).filter(([, value]) => value !== undefined && value !== ""),
  );
}

/** @type {typeof import("./env.js").ensureEnv} */
export function ensureEnv(root) {
  const file = path.join(root, ".env");
  const example = path.join(root, ".env.example");
  try {
    const text = fs.existsSync(example) ? fs.readFileSync(example, "utf8") : "";
    fs.writeFileSync(file, text, { mode: MODE, flag: "wx" });
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== "EEXIST") throw error;
  }
  const values = readEnv(root);
  const defaults = {
    DB_PORT: () => FIRST_DATABASE_PORT,
    DB_NAME: () => databaseName(root),
    DB_PASSWORD: () => randomBytes(16).toString("hex"),
    PROJECT_ID: () => randomBytes(4).toString("hex"),
  };
  for (const [key, value] of Object.entries(defaults)) if (!values[key]) writeEnv(root, key, value());
  return readEnv(root);
}

/** @type {typeof import("./env.js").writeEnv} */
export function writeEnv(root, key, value) {
  // The target of a link is changed, the link stays.
  const file = fs.realpathSync(path.join(root, ".env"));
  const text = fs.readFileSync(file, "utf8");
  const line = `${key}=${quote(value)}`;
  const present = new RegExp(`^[ \\t]*(?:export[ \\t]+)?${key}[ \\t]*=.*$`, "m");
  const lineEnd = text === "" || text.endsWith("\n") ? "" : "\n";
  const changed = present.test(text) ? text.replace(present, () => line) : `${text}${lineEnd}${line}\n`;
  // Renamed into place, so that a crash cannot leave half a file without its password.
  const draft = `${file}.${process.pid}`;
  fs.writeFileSync(draft, changed, { mode: MODE });
  fs.renameSync(draft, file);
}

/** @type {typeof import("./env.js").databaseUrl} */
export function databaseUrl(env) {
  if (env.DATABASE_URL) return env.DATABASE_URL;
  const password = encodeURIComponent(env.DB_PASSWORD ?? "");
  return `postgresql://postgres:${password}@127.0.0.1:${env.DB_PORT}/${encodeURIComponent(env.DB_NAME ?? "")}`;
}

/** @param {string} root */
function readFile(root) {
  try {
    return parseEnv(fs.readFileSync(path.join(root, ".env"), "utf8"));
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code === "ENOENT") return {};
    throw error;
  }
}

/** A `#` or a blank would end an unquoted value. @param {string} value */
function quote(value) {
  if (/^[\w.:/@%?&=+,~-]*$/.test(value)) return value;
  const mark = ["'", '"', "`"].find((candidate) => !value.includes(candidate));
  if (!mark) throw new Error("A value for .env may not hold all three kinds of quotation marks.");
  return mark + value + mark;
}

/** @param {string} root */
function databaseName(root) {
  const { name } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"));
  return String(name)
    .replace(/^@.*\//, "")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "_")
    .slice(0, 63);
}
