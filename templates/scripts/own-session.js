import { spawnSync } from "node:child_process";

const maxStarts = 20;

/**
 * Runs a program to its end in its own session. In the session of the terminal, Ctrl-C would end the program before its
 * work is done.
 * @param {string} program @param {string[]} args
 * @param {import("node:child_process").SpawnSyncOptionsWithStringEncoding} options
 */
export function runInOwnSession(program, args, options) {
  // Node supports `detached` here too, although its documentation mentions it only for spawn(). A test checks this.
  const detached = { ...options, detached: process.platform !== "win32" };
  // Ctrl-C can hit the program in the millisecond between fork and setsid, before it has begun. Then it is started
  // again. On a busy machine this time is longer, and someone who holds Ctrl-C down hits it more than once.
  for (let starts = 1; ; starts++) {
    const result = spawnSync(program, args, detached);
    if (result.signal !== "SIGINT" || starts === maxStarts) return result;
  }
}
