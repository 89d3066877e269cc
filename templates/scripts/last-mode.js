// Remembers in which way a server of this project was started last. Otherwise the project would switch silently to
// another, empty server as soon as Docker is started or a program is installed.
import fs from "node:fs";
import path from "node:path";

/** @param {string} root @param {"database" | "redis"} server */
const modeFile = (root, server) => path.join(root, `.data/${server}-mode`);

/**
 * Returns the mode of the last successful start.
 * @template {string} Mode
 * @param {string} root @param {"database" | "redis"} server @param {readonly Mode[]} modes the modes that exist
 * @returns {Mode | undefined}
 */
export function readMode(root, server, modes) {
  const file = modeFile(root, server);
  if (!fs.existsSync(file)) return undefined;
  const text = fs.readFileSync(file, "utf8").trim();
  return modes.find((name) => name === text);
}

/** @param {string} root @param {"database" | "redis"} server @param {string} mode */
export function writeMode(root, server, mode) {
  const file = modeFile(root, server);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, `${mode}\n`);
}
