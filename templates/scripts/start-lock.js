// Lets only one process at a time start a server of this project. Two servers on one data folder would destroy it.
import fs from "node:fs";
import { setTimeout } from "node:timers/promises";
import { Failure } from "./failure.js";
import { isAlive } from "./server-process.js";

const WAIT_MS = 90_000;

/**
 * Does the work while no other process holds the lock file. The file of a process that was killed is ignored.
 * @template T
 * @param {string} file @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withStartLock(file, work) {
  const end = Date.now() + WAIT_MS;
  while (!take(file)) {
    const holder = Number(fs.existsSync(file) ? fs.readFileSync(file, "utf8") : 0);
    // An empty file was created at this moment, and its process id follows.
    if (holder > 0 && !isAlive(holder)) fs.rmSync(file, { force: true });
    else if (Date.now() > end) {
      throw new Failure(
        `Process ${holder} has been starting the server for ${WAIT_MS / 1000} s. End it, or delete ${file}.`,
      );
    } else await setTimeout(50);
  }
  try {
    return await work();
  } finally {
    fs.rmSync(file, { force: true });
  }
}

/** Creates the lock file. Returns false if it exists. @param {string} file */
function take(file) {
  try {
    fs.writeFileSync(file, String(process.pid), { flag: "wx" });
    return true;
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== "EEXIST") throw error;
    return false;
  }
}
