// Reads and writes the application's settings: the file `.env` in its root. The real environment overrides the file.
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { parseEnv } from "node:util";
import { AddressError } from "../backend/saq/address-parts.js";
import { parsePostgresAddress } from "../backend/saq/postgres-address.js";
import { parseQueueAddress } from "../backend/saq/queue-address.js";
import { Failure } from "./failure.js";

/** File mode of `.env`: other users cannot read it, because it contains the database's password. */
const MODE = 0o600;
/**
 * Databases that PostgreSQL creates itself. An application does not use them: template0 accepts no connections, and
 * PostgreSQL copies the contents of template1 into every new database.
 */
const SYSTEM_DATABASES = ["postgres", "template0", "template1"];
const DEFAULT_DATABASE_PORT = "55432";
/** Pattern for the part after `=` of a line that has a value. Quotation marks alone or a comment alone are no value. */
const FILLED = "[ \\t'\"`]*[^\\s'\"`#].*";

/** @type {typeof import("./env.js").readEnv} */
export function readEnv(root) {
  return { ...withoutEmpty(readFile(root)), ...withoutEmpty(process.env) };
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
    DB_PORT: () => DEFAULT_DATABASE_PORT,
    DB_NAME: () => databaseName(root),
    DB_PASSWORD: () => randomBytes(16).toString("hex"),
    PROJECT_ID: () => randomBytes(4).toString("hex"),
  };
  for (const [key, value] of Object.entries(defaults)) {
    if (values[key]) continue;
    // A line after an unclosed quotation mark is not read. Such a line is not overwritten, so that its value is not
    // lost.
    if (!lineOf(key, FILLED).test(readText(file))) writeEnv(root, key, value());
    if (!readEnv(root)[key]) {
      throw new Failure(
        `The line ${key}= in ${file} is not read: a quotation mark above it is not closed, or a second ${key}= ` +
          "follows it. Correct the file.",
      );
    }
  }
  return readEnv(root);
}

/** @type {typeof import("./env.js").writeEnv} */
export function writeEnv(root, key, value) {
  // If .env is a symbolic link, its target is changed and the link stays.
  const file = fs.realpathSync(path.join(root, ".env"));
  const text = readText(file);
  const line = `${key}=${quote(value)}`;
  const present = lineOf(key, ".*");
  const lineEnd = text === "" || text.endsWith("\n") ? "" : "\n";
  const changed = present.test(text) ? text.replace(present, () => line) : `${text}${lineEnd}${line}\n`;
  // The new file is renamed into place, so that a crash cannot leave half a file without the password.
  const draft = `${file}.${process.pid}`;
  try {
    fs.writeFileSync(draft, changed, { mode: MODE });
    fs.renameSync(draft, file);
  } catch (error) {
    fs.rmSync(draft, { force: true });
    throw error;
  }
}

/** @type {typeof import("./env.js").databaseUrl} */
export function databaseUrl(env) {
  if (env.DATABASE_URL) return env.DATABASE_URL;
  const password = encodeURIComponent(env.DB_PASSWORD ?? "");
  const address = `127.0.0.1:${env.DB_PORT}/${encodeURIComponent(env.DB_NAME ?? "")}`;
  // sslmode=disable: the project's own server has no TLS, and PGSSLMODE may demand it for other servers.
  return `postgresql://postgres:${password}@${address}?sslmode=disable`;
}

/** @type {typeof import("./env.js").databaseAddress} */
export function databaseAddress(env) {
  try {
    return parsePostgresAddress(databaseUrl(env), env);
  } catch (error) {
    if (!(error instanceof AddressError) || !env.DATABASE_URL) throw error;
    throw new Failure(`DATABASE_URL (from ${sourceOf("DATABASE_URL")}) ${error.message}`);
  }
}

/** @type {typeof import("./env.js").queueAddress} */
export function queueAddress(env) {
  if (!env.QUEUE_DSN) return { storage: "postgres", address: databaseAddress(env) };
  try {
    return parseQueueAddress(env.QUEUE_DSN, env);
  } catch (error) {
    if (!(error instanceof AddressError)) throw error;
    throw new Failure(`QUEUE_DSN (from ${sourceOf("QUEUE_DSN")}) ${error.message}`);
  }
}

/** @type {typeof import("./env.js").sourceOf} */
export function sourceOf(name) {
  return process.env[name] ? "the environment" : ".env";
}

/** @param {string} root */
function readFile(root) {
  const file = path.join(root, ".env");
  try {
    return parseEnv(readText(file));
  } catch (error) {
    const { code } = /** @type {NodeJS.ErrnoException} */ (error);
    if (code === "ENOENT") return {};
    if (code === "EISDIR")
      throw new Failure(`${file} is a folder, but it must be a file. Rename the folder: mv .env old-env`);
    throw error;
  }
}

/**
 * Reads a text file without its byte order mark, which some editors write at the start. It would become a part of the
 * first setting's name.
 * @param {string} file
 */
function readText(file) {
  const bytes = fs.readFileSync(file);
  if (bytes.includes(0))
    throw new Failure(`${file} is not in UTF-8. Save it as UTF-8; PowerShell's > writes UTF-16.`);
  return bytes.toString("utf8").replace(/^\uFEFF/, "");
}

/** @param {import("./env.js").Env} values */
function withoutEmpty(values) {
  return Object.fromEntries(
    Object.entries(values).filter(([, value]) => value !== undefined && value !== ""),
  );
}

/** @param {string} key @param {string} value a regular expression for the part after `=` */
const lineOf = (key, value) => new RegExp(`^[ \\t]*(?:export[ \\t]+)?${key}[ \\t]*=${value}$`, "m");

/** Quotes a value where necessary, because a `#` or a space would end an unquoted value. @param {string} value */
function quote(value) {
  if (/^[\w.:/@%?&=+,~-]*$/.test(value)) return value;
  const quoteMark = ["'", '"', "`"].find((candidate) => !value.includes(candidate));
  if (!quoteMark) throw new Error("A value for .env must not contain all three kinds of quotation marks.");
  return quoteMark + value + quoteMark;
}

/** @param {string} root */
function databaseName(root) {
  const { name } = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"));
  const plain = String(name)
    .replace(/^@.*\//, "")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "_")
    .slice(0, 63);
  return SYSTEM_DATABASES.includes(plain) ? `${plain}_app` : plain;
}
