import { displayPath, FRONTEND_PORT, type Options } from "./options.js";
import type { GitResult } from "./steps/git.js";
import { INSTALL_COMMAND, type InstallResult } from "./steps/install.js";

/** The results of the steps after the files were written. */
export interface StepResults {
  install: InstallResult;
  git: GitResult;
}

/** One remaining step for the user: a command or an instruction, and its purpose. */
export interface NextStep {
  command: string;
  about: string;
}

/** Returns the steps that remain for the user, in order. */
export function nextSteps(
  options: Options,
  results: StepResults,
  cwd: string,
  platform: NodeJS.Platform,
): NextStep[] {
  const { project } = options;
  const steps: NextStep[] = [];
  if (project.directory !== cwd) {
    steps.push({ command: `cd ${quoteForShell(displayPath(project.directory, cwd), platform)}`, about: "" });
  }
  if (options.db === "url" && options.databaseUrl === null) {
    steps.push({ command: "edit .env", about: "set DATABASE_URL to your database" });
  }
  if (results.install.status === "failed" || results.install.status === "interrupted") {
    steps.push({ command: INSTALL_COMMAND, about: "it did not finish" });
  }
  const servers = options.queue === "redis" ? "database, Redis," : "database,";
  steps.push({
    command: platform === "win32" ? "npm run dev-all" : "make dev-all",
    about:
      results.install.status === "skipped"
        ? "installs what is missing, then runs everything"
        : `runs ${servers} API${options.frontend ? ", worker and front end" : " and worker"}`,
  });
  return steps;
}

/** Returns the addresses of the running application. */
export function addresses(options: Options): NextStep[] {
  const api = `http://localhost:${options.port}`;
  return [
    ...(options.frontend ? [{ command: `http://localhost:${FRONTEND_PORT}`, about: "front end" }] : []),
    { command: api, about: "API" },
    { command: `${api}/saq`, about: "queues and jobs" },
  ];
}

/** Quotes a path, if necessary, so that the shell reads it as one word. */
function quoteForShell(path: string, platform: NodeJS.Platform): string {
  const word = path.startsWith("-") ? `./${path}` : path;
  if (/^[\w@%+=:,./\\-]+$/.test(word)) return word;
  return platform === "win32" ? `"${word}"` : `'${word.replaceAll("'", "'\\''")}'`;
}
