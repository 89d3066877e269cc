import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/** Returns the path of the installed Redis server; null if there is none. */
export function findRedisServer() {
  const paths = (process.env.PATH ?? "").split(delimiter).map((folder) => join(folder, "redis-server"));
  return paths.find(isProgram) ?? null;
}

/** @param {string} path */
function isProgram(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Null if the tests can start Redis servers; otherwise the reason why they cannot. */
export const redisServerMissing = findRedisServer()
  ? null
  : 'there is no redis-server on the PATH (Debian\'s package is "redis-server")';

/** Null if the tests have a Redis server; otherwise the reason why they have none. */
export const redisMissing =
  process.env.TEST_REDIS_URL || !redisServerMissing
    ? null
    : `${redisServerMissing}, and TEST_REDIS_URL is not set`;
