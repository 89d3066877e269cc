import { spawnSync } from "node:child_process";

/**
 * Runs a program to its end in its own session. In the session of the terminal, Ctrl-C would end the program before its
 * work is done.
 * @param {string} program @param {string[]} args
 * @param {import("node:child_process").SpawnSyncOptionsWithStringEncoding} options
 */
export function runInOwnSession(program, args, options) {
  // Node supports `detached` here too, although its documentation mentions it only for spawn(). A test checks this.
  const detached = { ...options, detached: process.platform !== "win32" };
  const result = spawnSync(program, args, detached);
  // Ctrl-C can hit the program in the millisecond between fork and setsid, before it has begun. Then it runs once more.
  return result.signal === "SIGINT" ? spawnSync(program, args, detached) : result;
}
