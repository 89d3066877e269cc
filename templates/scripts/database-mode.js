// Chooses and remembers the mode of the project's own database: embedded or Docker.
import { Failure } from "./failure.js";
import { readMode, writeMode } from "./last-mode.js";

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

/** @type {typeof import("./database-mode.js").lastMode} */
export const lastMode = (root) => readMode(root, "database", MODES);

/** @type {typeof import("./database-mode.js").rememberMode} */
export const rememberMode = (root, mode) => writeMode(root, "database", mode);
