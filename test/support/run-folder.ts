import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const VARIABLE = "TEST_RUN_FOLDER";

/** Makes the one temporary folder of this jest run, outside the repository. Called by the global set-up. */
export function openRunFolder(): void {
  process.env[VARIABLE] = mkdtempSync(join(tmpdir(), "create-saq-app-test-"));
}

/** Removes it with all that tests left in it. Called by the global tear-down. */
export function closeRunFolder(): void {
  const folder = process.env[VARIABLE];
  if (folder) rmSync(folder, { recursive: true, force: true });
}

/** The folder that all test files of this run share. */
export function runFolder(): string {
  const folder = process.env[VARIABLE];
  if (!folder) throw new Error("test/global-setup.ts must call openRunFolder() before the tests.");
  return folder;
}
