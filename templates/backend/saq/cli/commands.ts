/** The commands, their options, and their help texts. */
import type { ParseArgsConfig } from "node:util";

export const options = {
  workers: { type: "string" },
  queues: { type: "string", multiple: true },
  config: { type: "string" },
  yes: { type: "boolean", short: "y" },
  python: { type: "boolean" },
  "no-python": { type: "boolean" },
  verbose: { type: "boolean", short: "v" },
  debug: { type: "boolean", short: "d" },
  help: { type: "boolean", short: "h" },
} as const satisfies ParseArgsConfig["options"];
export type OptionName = keyof typeof options;

const aboutOptions: Record<OptionName, readonly [usage: string, about: string]> = {
  workers: ["--workers N", "number of processes, including this one (default: 1)"],
  queues: ["--queues NAME", "only this queue; you can repeat this option (default: all queues)"],
  config: ["--config PATH", "module that exports `saq` or `saqConfig` (default: app/queue/index)"],
  yes: ["-y, --yes", "apply the plan"],
  python: ["--python", "Python workers use these tables: create SAQ's two own indexes if they are missing"],
  "no-python": [
    "--no-python",
    "no Python worker uses them: drop these indexes; they cost a write for each job",
  ],
  verbose: ["-v, --verbose", "log everything (LOG_LEVEL=debug)"],
  debug: ["-d, --debug", "the same as --verbose"],
  help: ["-h, --help", "show this text"],
};

export const commands = {
  "workers run": {
    about: "run workers until SIGINT or SIGTERM",
    options: ["workers", "queues", "config", "verbose", "debug", "help"],
    more:
      "Waits for an unreachable database, at most for the queue's startTimeout.\n" +
      "If another process dies, the first process starts it again after 1 s. The pause doubles with each\n" +
      "death in a row, up to 30 s.\n" +
      "After SIGTERM, running jobs may finish within the grace period. A signal more than 2 s later ends it.\n" +
      "Exit code: 0 after a signal; 1 if a process failed or the database is unreachable;\n" +
      "2 if the command line is invalid.",
  },
  "workers status": {
    about: "show the queues, their jobs by state and their live workers",
    options: ["queues", "config", "verbose", "debug", "help"],
    more: "Exit code: 0 if every queue has a live worker; 1 if not, or if the database is unreachable.",
  },
  check: {
    about: "print one line per queue, for health checks",
    options: ["queues", "config", "help"],
    more:
      "Exit code: 0 if every queue has a live worker; 1 if not, if a queue is unknown,\n" +
      "or if the database is unreachable.",
  },
  tune: {
    about: "show what tables created by Python lack; with --yes, change them to our layout",
    options: ["yes", "python", "no-python", "queues", "config", "help"],
    more:
      "Safe while workers run: it rewrites no table, builds indexes CONCURRENTLY, and waits at most 1 s\n" +
      "for a lock.\n" +
      "Exit code: 0 if all steps are done or only shown; 1 if a step failed (run tune again),\n" +
      "or if the database is unreachable.",
  },
} as const satisfies Record<string, { about: string; options: readonly OptionName[]; more: string }>;
export type CommandName = keyof typeof commands;
export const commandNames = Object.keys(commands) as CommandName[];

/** Returns the help of one command; for null, of all commands. */
export function helpText(name: CommandName | null): string {
  if (name === null) {
    const list = columns(commandNames.map((command) => [command, commands[command].about]));
    return `npm run saq -- <command> [options]\n\n${list}\n\nOptions of a command: npm run saq -- <command> --help`;
  }
  const { about, options: own, more } = commands[name];
  const list = columns(own.map((option) => aboutOptions[option]));
  return `npm run saq -- ${name} [options]\n\n${about}\n\n${list}\n\n${more}`;
}

const columns = (rows: readonly (readonly [string, string])[]): string => {
  const width = Math.max(...rows.map(([first]) => first.length));
  return rows.map(([first, second]) => `  ${first.padEnd(width)}   ${second}`).join("\n");
};
