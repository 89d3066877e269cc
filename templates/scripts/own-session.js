import { spawnSync } from "node:child_process";

/**
 * Runs a program to its end in a session of its own: a Ctrl-C in the terminal is meant for this process, and would end
 * the program before its work is done.
 * @param {string} program @param {string[]} args
 * @param {import("node:child_process").SpawnSyncOptionsWithStringEncoding} options
 */
export function runInOwnSession(program, args, options) {
  // Node honours `detached` here too, although its documentation has it for spawn() alone; a test holds it to that.
  const detached = { ...options, detached: process.platform !== "win32" };
  const result = spawnSync(program, args, detached);
  // A Ctrl-C of the millisecond between fork and setsid hit it before it began.
  return result.signal === "SIGINT" ? spawnSync(program, args, detached) : result;
}
