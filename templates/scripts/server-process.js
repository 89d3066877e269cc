// Checks whether a process is the server of a data folder. The process id in a file proves nothing: after kill -9 or a
// crash the file stays, and its process id may now belong to an unrelated process, which must not be signalled.
import { spawnSync } from "node:child_process";
import fs from "node:fs";

/** Returns true if a process with this id runs. @param {number} pid */
export function isAlive(pid) {
  if (!(pid > 0)) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return /** @type {NodeJS.ErrnoException} */ (error).code === "EPERM";
  }
}

/**
 * Returns true if the process runs in the folder (Linux), or is one of the programs (other systems).
 * @param {number} pid @param {string} dataDir @param {RegExp} programs
 */
export function isServerOf(pid, dataDir, programs) {
  if (!isAlive(pid)) return false;
  if (process.platform === "linux") {
    try {
      // The server's working directory is its data folder.
      return fs.readlinkSync(`/proc/${pid}/cwd`) === fs.realpathSync(dataDir);
    } catch {
      return false;
    }
  }
  const [command, args] =
    process.platform === "win32"
      ? ["tasklist", ["/FO", "CSV", "/NH", "/FI", `PID eq ${pid}`]]
      : ["ps", ["-o", "command=", "-p", String(pid)]];
  return programs.test(spawnSync(command, args, { encoding: "utf8" }).stdout ?? "");
}
