import fs from "node:fs";
import os from "node:os";
import path from "node:path";

/** Something the user can mend: its message is all that is shown, without a stack. */
export class Failure extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = "Failure";
  }
}

/**
 * What the operating system refused, in one sentence with the command that helps; any other error as it is.
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
      // A file that is not there cannot be made: its folder has to be opened.
      const target = fs.existsSync(file) ? file : path.dirname(file);
      return `No permission to use ${target}. Take it over: sudo chown -R ${uid} '${target}' && chmod -R u+rwX '${target}'`;
    }
    case "ENOENT":
      if (fs.existsSync(os.tmpdir())) return message;
      return `The folder for temporary files, ${os.tmpdir()}, does not exist. Make it, or correct TMPDIR.`;
    case "EROFS":
      return `${file ?? syscall} lies on a disk that is read-only. Move the project to another folder.`;
    case "ENOSPC":
      return `The disk is full: ${message}. Make room, and try again.`;
    default:
      return message;
  }
}

/**
 * Runs a command of this folder: what the user can mend is printed as one sentence, without a stack; code 1.
 * @param {() => Promise<number | void>} command answers the exit code, 0 unless given
 */
export async function run(command) {
  try {
    process.exitCode = (await command()) ?? 0;
  } catch (error) {
    console.error(explain(error));
    process.exitCode = 1;
  }
}
