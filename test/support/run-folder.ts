/** Returns the folder, outside the repository, that the test files of a run share. The global teardown removes it. */
export function runFolder(): string {
  const folder = process.env.TEST_RUN_FOLDER;
  if (!folder) throw new Error("TEST_RUN_FOLDER is not set: test/global-setup.ts makes it.");
  return folder;
}
