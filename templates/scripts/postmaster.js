// Finds the PostgreSQL server that runs on a data folder. It reads postmaster.pid and then checks the process, because
// the file alone may be out of date.
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";

/**
 * Returns the live server of a data folder. The file alone proves nothing: after kill -9 or a crash it stays, and its
 * process id may now belong to an unrelated process, which must not be waited for or signalled.
 * @param {string} dataDir
 * @returns {{ pid: number, port: number } | undefined}
 */
export function postmasterOf(dataDir) {
  const file = readPidFile(dataDir);
  if (!file || !isServerOf(file.pid, dataDir)) return undefined;
  return file.port === undefined ? undefined : { pid: file.pid, port: file.port };
}

/**
 * Deletes a postmaster.pid whose process id belongs to a live process that is not the server of this folder: with this
 * file PostgreSQL would refuse to start. PostgreSQL itself handles the file of a dead process; it checks the shared
 * memory of that process.
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
  // Lines: process id, data folder, start time, port, ... The server writes them one after the other while it starts.
  const [pid, , , port] = text.split("\n");
  return { pid: Math.abs(Number(pid)), port: Number(port) || undefined };
}

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
