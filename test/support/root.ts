/** Whether the tests run as root, whom no file's permissions stop. */
export const isRoot = process.getuid?.() === 0;

/** Says that a test is skipped because of that. */
export function skippedAsRoot(what: string): void {
  process.stderr.write(`Root may read and write every file: ${what} is not tested.\n`);
}
