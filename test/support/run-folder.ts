/** The temporary folder that all test files of this run share, outside the repository; the global tear-down removes it. */
export function runFolder(): string {
  const folder = process.env.TEST_RUN_FOLDER;
  if (!folder) throw new Error("TEST_RUN_FOLDER is not set: test/global-setup.ts makes it.");
  return folder;
}
