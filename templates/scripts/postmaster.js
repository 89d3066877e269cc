// Who runs a data folder: reads postmaster.pid, and does not believe it without looking at the process.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";

/**
 * The live server of a data folder. The file alone proves nothing: after kill -9 or a crash it stays behind, and its
 * number may by then belong to somebody else's process, which must be neither waited for nor signalled.
 * @param {string} dataDir
 * @returns {{ pid: number, port: number } | undefined}
 */
export function postmasterOf(dataDir) {
  const file = readPidFile(dataDir);
  if (!file || !isServerOf(file.pid, dataDir)) return undefined;
  return file.port === undefined ? undefined : { pid: file.pid, port: file.port };
}

/**
 * Removes a postmaster.pid whose number belongs to a living process that is no server of this folder: PostgreSQL
 * itself would refuse to start. The file of a dead process is left to PostgreSQL, which checks its shared memory.
 * @param {string} dataDir
 */
export function removeStalePidFile(dataDir) {
  const file = readPidFile(dataDir);
  if (file && isAlive(file.pid) && !isServerOf(file.pid, dataDir))
    fs.rmSync(path.join(dataDir, "postmaster.pid"));
}

/** @param {string} dataDir */
function readPidFile(dataDir) {
  let text;
  try {
    text = fs.readFileSync(path.join(dataDir, "postmaster.pid"), "utf8");
  } catch {
    return undefined;
  }
  // Lines: pid, data folder, start time, port, ...; the server writes them one after the other while it starts.
  const [pid, , , port] = text.split("\n");
  return { pid: Math.abs(Number(pid)), port: Number(port) || undefined };
}

/** Whether a process of that number runs. @param {number} pid */
export function isAlive(pid) {
  if (!(pid > 0)) return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return /** @type {NodeJS.ErrnoException} */ (error).code === "EPERM";
  }
}

/** @param {number} pid @param {string} dataDir */
function isServerOf(pid, dataDir) {
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
  return /postgres/i.test(spawnSync(command, args, { encoding: "utf8" }).stdout ?? "");
}
