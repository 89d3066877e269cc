import { chmodSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/**
 * A folder that every user can pass through: as root, the database's server runs as another user. Not below the
 * test run's own folder, which is closed to others.
 */
export function openFolder(name = "saq-scripts-"): string {
  const folder = mkdtempSync(join(tmpdir(), name));
  chmodSync(folder, 0o755);
  return folder;
}
