import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

/**
 * Ends the Redis server that the tests of this run have started, if there is one. For the global teardown, which jest
 * loads without its own rules for TypeScript files.
 *
 * @param {string} runFolder
 */
export async function stopTestRedis(runFolder) {
  const answer = join(runFolder, "redis", "answer.json");
  if (!existsSync(answer)) return;
  const { value } = JSON.parse(readFileSync(answer, "utf8"));
  if (!value) return;
  const isRunning = () => {
    try {
      return process.kill(value.pid, 0);
    } catch {
      return false;
    }
  };
  if (isRunning()) process.kill(value.pid, "SIGTERM");
  for (let look = 0; look < 500 && isRunning(); look++) await sleep(20);
}
