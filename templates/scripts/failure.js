/** Something the user can mend: its message is all that is shown, without a stack. */
export class Failure extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = "Failure";
  }
}

/**
 * Runs a command of this folder: a Failure is printed as it is and ends with code 1.
 * @param {() => Promise<number | void>} command answers the exit code, 0 unless given
 */
export async function run(command) {
  try {
    process.exitCode = (await command()) ?? 0;
  } catch (error) {
    console.error(error instanceof Failure ? error.message : error);
    process.exitCode = 1;
  }
}
