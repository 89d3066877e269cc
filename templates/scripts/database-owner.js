// dev-all stops the database that it has started. When it is killed (SIGKILL) it cannot, and the next start says so.
import fs from "node:fs";
import path from "node:path";
import { isAlive } from "./postmaster.js";

/** @param {string} root */
const ownerFile = (root) => path.join(root, ".data/dev-all.pid");

/** This process has started the database and will stop it. @param {string} root */
export function rememberOwner(root) {
  fs.mkdirSync(path.dirname(ownerFile(root)), { recursive: true });
  fs.writeFileSync(ownerFile(root), `${process.pid}\n`);
}

/** The database was stopped, or is to stay. @param {string} root */
export function forgetOwner(root) {
  fs.rmSync(ownerFile(root), { force: true });
}

/** True when the dev-all that started the database was killed before it stopped it. @param {string} root */
export function isAbandoned(root) {
  if (!fs.existsSync(ownerFile(root))) return false;
  return !isAlive(Number(fs.readFileSync(ownerFile(root), "utf8")));
}
