// Remembers which dev-all process has started a server of this project. dev-all stops that server at its end. If
// dev-all is killed with SIGKILL, it cannot do this, and the next start reports that the server was left running.
import fs from "node:fs";
import path from "node:path";
import { isAlive } from "./server-process.js";

/** @typedef {"database" | "redis"} Server */

/** @type {Record<Server, string>} */
const FILES = { database: ".data/dev-all.pid", redis: ".data/dev-all-redis.pid" };

/** @param {string} root @param {Server} server */
const ownerFile = (root, server) => path.join(root, FILES[server]);

/** Records that this process has started the server and will stop it. @param {string} root @param {Server} server */
export function rememberOwner(root, server) {
  const file = ownerFile(root, server);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, `${process.pid}\n`);
}

/**
 * Deletes the record, because the server was stopped or is meant to keep running.
 * @param {string} root @param {Server} server
 */
export function forgetOwner(root, server) {
  fs.rmSync(ownerFile(root, server), { force: true });
}

/**
 * Returns true if the dev-all that started the server was killed before it stopped it.
 * @param {string} root @param {Server} server
 */
export function isAbandoned(root, server) {
  const file = ownerFile(root, server);
  if (!fs.existsSync(file)) return false;
  return !isAlive(Number(fs.readFileSync(file, "utf8")));
}

/**
 * Starts a server that is meant to keep running after this process.
 * @param {string} root @param {Server} server @param {(root: string) => Promise<{ started: boolean }>} start
 */
export async function startToKeep(root, server, start) {
  const abandoned = isAbandoned(root, server);
  const { started } = await start(root);
  if (abandoned && !started) {
    const stop = server === "database" ? "make db-stop" : "make redis-stop";
    console.log(`A make dev-all that was killed left it running. To stop it, run ${stop}.`);
  }
  forgetOwner(root, server);
}
