// Remembers which dev-all process has started the database. dev-all stops that database at its end. If dev-all is
// killed with SIGKILL, it cannot do this, and the next start reports that the database was left running.
import fs from "node:fs";
import path from "node:path";
import { isAlive } from "./postmaster.js";

/** @param {string} root */
const ownerFile = (root) => path.join(root, ".data/dev-all.pid");

/** Records that this process has started the database and will stop it. @param {string} root */
export function rememberOwner(root) {
  fs.mkdirSync(path.dirname(ownerFile(root)), { recursive: true });
  fs.writeFileSync(ownerFile(root), `${process.pid}\n`);
}

/** Deletes the record, because the database was stopped or is meant to keep running. @param {string} root */
export function forgetOwner(root) {
  fs.rmSync(ownerFile(root), { force: true });
}

/** Returns true if the dev-all that started the database was killed before it stopped it. @param {string} root */
export function isAbandoned(root) {
  if (!fs.existsSync(ownerFile(root))) return false;
  return !isAlive(Number(fs.readFileSync(ownerFile(root), "utf8")));
}
