import { FRONTEND_PORT, type Options, shownPath } from "./options.js";
import type { GitResult } from "./steps/git.js";
import { INSTALL_COMMAND, type InstallResult } from "./steps/install.js";

export interface Done {
  install: InstallResult;
  git: GitResult;
}

/** One thing left to do: a command or an instruction, and what it is for. */
export interface NextStep {
  command: string;
  about: string;
}

/** What is left to do, and only that, in order. */
export function nextSteps(options: Options, done: Done, cwd: string, platform: NodeJS.Platform): NextStep[] {
  const { project } = options;
  const steps: NextStep[] = [];
  if (project.directory !== cwd) {
    steps.push({ command: `cd ${quoted(shownPath(project.directory, cwd), platform)}`, about: "" });
  }
  if (options.db === "url" && options.databaseUrl === null) {
    steps.push({ command: "edit .env", about: "set DATABASE_URL to your database" });
  }
  if (done.install.status === "failed" || done.install.status === "interrupted") {
    steps.push({ command: INSTALL_COMMAND, about: "it did not finish" });
  }
  steps.push({
    command: platform === "win32" ? "npm run dev-all" : "make dev-all",
    about:
      done.install.status === "skipped"
        ? "installs what is missing, then runs everything"
        : `runs database, API${options.frontend ? ", worker and front end" : " and worker"}`,
  });
  return steps;
}

/** Where the running application answers. */
export function addresses(options: Options): NextStep[] {
  const api = `http://localhost:${options.port}`;
  return [
    ...(options.frontend ? [{ command: `http://localhost:${FRONTEND_PORT}`, about: "front end" }] : []),
    { command: api, about: "API" },
    { command: `${api}/saq`, about: "queues and jobs" },
  ];
}

/** The path as one word for the shell that will read it. */
function quoted(path: string, platform: NodeJS.Platform): string {
  const word = path.startsWith("-") ? `./${path}` : path;
  if (/^[\w@%+=:,./\\-]+$/.test(word)) return word;
  return platform === "win32" ? `"${word}"` : `'${word.replaceAll("'", "'\\''")}'`;
}
