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
  workers: ["--workers N", "processes, this one included (default 1)"],
  queues: ["--queues NAME", "this queue only; may be given several times (default: all)"],
  config: ["--config PATH", "module that exports `saq` or `saqConfig` (default: app/queue/index)"],
  yes: ["-y, --yes", "carry the plan out"],
  python: ["--python", "Python workers use these tables: make SAQ's own two indexes where they are missing"],
  "no-python": ["--no-python", "none does: drop them, each is written for every job"],
  verbose: ["-v, --verbose", "log everything (LOG_LEVEL=debug)"],
  debug: ["-d, --debug", "the same as --verbose"],
  help: ["-h, --help", "this text"],
};

export const commands = {
  "workers run": {
    about: "run workers until SIGINT or SIGTERM",
    options: ["workers", "queues", "config", "verbose", "debug", "help"],
    more:
      "Waits for a database that is away, up to the queue's startTimeout. The first process starts the others again\n" +
      "when they die, after 1 s, doubling to 30 s.\n" +
      "Exit code: 0 after a signal; 1 when a process failed or the database is away; 2 when the call is wrong.\n" +
      "After SIGTERM running jobs may finish within the grace period; a signal more than 2 s later ends that.",
  },
  "workers status": {
    about: "ask the database: queues, jobs by state, live workers",
    options: ["queues", "config", "verbose", "debug", "help"],
    more: "Exit code: 0 when every queue has a live worker; 1 when one has none, or the database is away.",
  },
  check: {
    about: "one line per queue, for health checks",
    options: ["queues", "config", "help"],
    more: "Exit code: 0 when every queue has a live worker; 1 when one has none or is unknown, or the database is away.",
  },
  tune: {
    about: "show what is missing in tables that Python made; with --yes, bring them to the layout of ours",
    options: ["yes", "python", "no-python", "queues", "config", "help"],
    more: "Safe while workers run: no table is rewritten, indexes are built CONCURRENTLY, locks are waited for 1 s.\nExit code: 0 when all is done or only shown; 1 when a step failed (run it again) or the database is away.",
  },
} as const satisfies Record<string, { about: string; options: readonly OptionName[]; more: string }>;
export type CommandName = keyof typeof commands;
export const commandNames = Object.keys(commands) as CommandName[];

/** Returns the help of one command; for null, of all commands. */
export function helpText(name: CommandName | null): string {
  if (name === null) {
    const list = columns(commandNames.map((each) => [each, commands[each].about]));
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
