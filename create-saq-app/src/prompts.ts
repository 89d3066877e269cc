import prompts from "prompts";
import { CliError, Interrupted } from "./errors.js";
import type { Flags } from "./flags.js";
import { type Answers, DEFAULTS, resolveProject } from "./options.js";
import { checkFolder } from "./target.js";

/**
 * Asks the user for the options that no flag sets: at most four questions. Each of them can also be answered by a flag.
 * @throws Interrupted on Ctrl-C or Ctrl-D
 */
export async function ask(flags: Flags, cwd: string): Promise<Answers> {
  const answers = await prompts<keyof Answers>(
    [
      {
        name: "directory",
        type: flags.directory === undefined ? "text" : null,
        message: "Folder of the new project",
        initial: DEFAULTS.directory,
        validate: (typed: string) => validateFolder(typed || DEFAULTS.directory, cwd),
      },
      {
        name: "frontend",
        type: flags.frontend === undefined ? "confirm" : null,
        message: "Add a front end (Vite, React)?",
        initial: DEFAULTS.frontend,
      },
      {
        name: "db",
        type: flags.db === undefined ? "select" : null,
        message: "PostgreSQL for development",
        choices: [
          { title: "Automatic", description: "Docker if it runs, else embedded", value: "auto" },
          { title: "Embedded", description: "a PostgreSQL from npm, data in .data/", value: "embedded" },
          { title: "Docker", description: "docker compose", value: "docker" },
          { title: "My own", description: "DATABASE_URL in .env", value: "url" },
        ],
        initial: 0,
      },
      {
        name: "install",
        type: flags.install === undefined ? "confirm" : null,
        message: "Install the dependencies now?",
        initial: DEFAULTS.install,
      },
    ],
    // Without this, prompts resolves with the answers so far, and the program would continue.
    {
      onCancel: () => {
        throw new Interrupted("Stopped. Nothing was written.");
      },
    },
  );
  return answers;
}

/** Returns true if the folder can be used, else the reason as a sentence. */
function validateFolder(typed: string, cwd: string): true | string {
  try {
    checkFolder(resolveProject(typed, cwd).directory);
    return true;
  } catch (error) {
    if (error instanceof CliError) return error.message;
    throw error;
  }
}
