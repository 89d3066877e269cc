// Finds the PostgreSQL server that runs on a data folder. It reads postmaster.pid and then checks the process, because
// the file alone may be out of date.
import fs from "node:fs";
import path from "node:path";
import { isAlive, isServerOf } from "./server-process.js";

const PROGRAMS = /postgres/i;

/**
 * Returns the live server of a data folder.
 * @param {string} dataDir
 * @returns {{ pid: number, port: number } | undefined}
 */
export function postmasterOf(dataDir) {
  const file = readPidFile(dataDir);
  if (!file || !isServerOf(file.pid, dataDir, PROGRAMS)) return undefined;
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
  if (file && isAlive(file.pid) && !isServerOf(file.pid, dataDir, PROGRAMS))
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
