import fs from "node:fs";
import os from "node:os";
import path from "node:path";

/** A problem that the user can fix. Only its message is shown, without a stack. */
export class Failure extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = "Failure";
  }
}

/**
 * Returns what to print for an error. For a Failure and for an error of the operating system this is a message, where
 * possible with the command that helps. Any other error is returned as it is.
 * @param {unknown} error
 */
function explain(error) {
  if (error instanceof Failure) return error.message;
  const { code, syscall, path: file, message } = /** @type {NodeJS.ErrnoException} */ (error);
  if (code === undefined || syscall === undefined) return error;
  switch (code) {
    case "EACCES":
    case "EPERM": {
      const uid = process.getuid?.();
      if (file === undefined || uid === undefined) return message;
      // If the file does not exist, the folder's permissions prevent its creation.
      const target = fs.existsSync(file) ? file : path.dirname(file);
      return (
        `No permission to use ${target}. To become its owner, run: ` +
        `sudo chown -R ${uid} '${target}' && chmod -R u+rwX '${target}'`
      );
    }
    case "ENOENT":
      if (fs.existsSync(os.tmpdir())) return message;
      return `The folder for temporary files, ${os.tmpdir()}, does not exist. Create it, or correct TMPDIR.`;
    case "EROFS":
      return `${file ?? syscall} is on a read-only disk. Move the project to another folder.`;
    case "ENOSPC":
      return `The disk is full: ${message}. Free some space, and try again.`;
    default:
      return message;
  }
}

/**
 * Runs a command of this folder and sets the exit code. An error is printed and the exit code is 1; a problem that the
 * user can fix is printed without a stack.
 * @param {() => Promise<number | void>} command returns the exit code; 0 if it returns nothing
 */
export async function run(command) {
  try {
    process.exitCode = (await command()) ?? 0;
  } catch (error) {
    console.error(explain(error));
    process.exitCode = 1;
  }
}
