import { chmodSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/**
 * Creates a folder that every user can enter: if the tests run as root, the database server runs as another user. It is
 * not below the folder of the test run, which is closed to other users.
 */
export function openFolder(name = "saq-scripts-"): string {
  const folder = mkdtempSync(join(tmpdir(), name));
  chmodSync(folder, 0o755);
  return folder;
}
