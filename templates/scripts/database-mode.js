// Chooses and remembers the mode of the project's own database: embedded or Docker.
import fs from "node:fs";
import path from "node:path";
import { Failure } from "./failure.js";

/** @type {import("./database-mode.js").Mode[]} */
const MODES = ["embedded", "docker"];

/** @type {typeof import("./database-mode.js").chooseMode} */
export function chooseMode({ explicit, last, isDockerAvailable }) {
  if (explicit !== undefined) {
    const mode = MODES.find((name) => name === explicit);
    if (mode) return { mode, reason: "explicit" };
    throw new Failure(
      `DB_MODE=${explicit} is not a known mode. Leave it empty (automatic), or write embedded or docker.`,
    );
  }
  if (last) return { mode: last, reason: "last" };
  return { mode: isDockerAvailable() ? "docker" : "embedded", reason: "available" };
}

/** @param {string} root */
const modeFile = (root) => path.join(root, ".data/database-mode");

/** @type {typeof import("./database-mode.js").lastMode} */
export function lastMode(root) {
  if (!fs.existsSync(modeFile(root))) return undefined;
  const text = fs.readFileSync(modeFile(root), "utf8").trim();
  return MODES.find((name) => name === text);
}

/** @type {typeof import("./database-mode.js").rememberMode} */
export function rememberMode(root, mode) {
  fs.mkdirSync(path.dirname(modeFile(root)), { recursive: true });
  fs.writeFileSync(modeFile(root), `${mode}\n`);
}
