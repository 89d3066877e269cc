/** The commands, their options, and their help texts. */
import type { ParseArgsConfig } from "node:util";

export const options = {
  workers: { type: "string" },
  queues: { type: "string", multiple: true },
  config: { type: "string" },
  queue: { type: "string" },
  status: { type: "string", multiple: true },
  task: { type: "string" },
  error: { type: "string" },
  "key-prefix": { type: "string" },
  "enqueued-after": { type: "string" },
  "enqueued-before": { type: "string" },
  limit: { type: "string" },
  cursor: { type: "string" },
  json: { type: "boolean" },
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
  queue: ["--queue NAME", "only jobs of this queue"],
  status: [
    "--status NAME",
    "queued, scheduled, active, aborting, complete, failed, aborted; you can repeat this option",
  ],
  task: ["--task NAME", "only jobs of this task"],
  error: ["--error TEXT", "only jobs whose error contains this text"],
  "key-prefix": ["--key-prefix TEXT", "only jobs whose key begins with this text"],
  "enqueued-after": [
    "--enqueued-after TIME",
    "only jobs that were enqueued at this time or later, see below",
  ],
  "enqueued-before": ["--enqueued-before TIME", "only jobs that were enqueued before this time, see below"],
  limit: ["--limit N", "maximum number of jobs"],
  cursor: ["--cursor TEXT", "go on where the same command has stopped; it has printed this text"],
  json: ["--json", "print JSON, as docs/cli.schema.json describes it; app/logger.ts then logs to standard error"],
  yes: ["-y, --yes", "make the change; without it, the command only shows what it would do"],
  python: ["--python", "Python workers use these tables: create SAQ's two own indexes if they are missing"],
  "no-python": [
    "--no-python",
    "no Python worker uses them: drop these indexes; they cost a write for each job",
  ],
  verbose: ["-v, --verbose", "log everything (LOG_LEVEL=debug)"],
  debug: ["-d, --debug", "the same as --verbose"],
  help: ["-h, --help", "show this text"],
};

/** The options that select jobs. */
export const selectionOptions = [
  "status",
  "task",
  "error",
  "key-prefix",
  "enqueued-after",
  "enqueued-before",
] as const satisfies readonly OptionName[];

const aboutTimes = "TIME is a time such as 2026-11-19T08:30:00Z, or 90s, 30m, 2h or 7d: that long ago.";

const changeOptions = [
  "queue",
  ...selectionOptions,
  "limit",
  "cursor",
  "yes",
  "json",
  "config",
  "verbose",
  "debug",
  "help",
] as const satisfies readonly OptionName[];

/**
 * Returns the end of the help of a command that changes jobs. `without`: which jobs it takes if --status is missing.
 */
const aboutChange = (without: string, refused: string): string =>
  `Give the KEY of one job, or options that select jobs. Without --status: ${without}.\n` +
  "If there are several queues, options that select jobs need --queue.\n" +
  "Without --yes the command counts the jobs, changes nothing, and prints what to run.\n" +
  "Jobs that are enqueued after the start of the command are not changed, and no job is changed twice.\n" +
  "Ctrl-C stops after the current page of jobs, and the command prints how to go on.\n" +
  `${aboutTimes}\n` +
  "Exit code: 0 if the jobs were changed, or if they were only counted, also if there are none;\n" +
  `1 if the job with this KEY does not exist or ${refused}, if none of several jobs could be changed,\n` +
  "if another transaction holds one of them (run the command again), if the document of one cannot be read,\n" +
  "or if the database is unreachable; 2 if the command line is invalid;\n" +
  "130 if Ctrl-C or SIGTERM stopped it before the end.";

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
  jobs: {
    about: "list jobs",
    options: ["queue", ...selectionOptions, "limit", "json", "config", "verbose", "debug", "help"],
    more:
      "Lists one queue after the other. In each, jobs whose keys were generated begin with the newest.\n" +
      "Without --status: jobs with any status. Without --limit: 50 jobs of each queue.\n" +
      `${aboutTimes}\n` +
      "Exit code: 0 also if there are no such jobs; 1 if the list takes longer than 5 s,\n" +
      "or if the database is unreachable; 2 if the command line is invalid.",
  },
  job: {
    about: "show one job, with its payload, result and error",
    argument: "KEY",
    options: ["queue", "json", "config", "verbose", "debug", "help"],
    more:
      "Exit code: 0 if the job exists; 1 if no queue has it, or if the database is unreachable;\n" +
      "2 if the command line is invalid, or if several queues have a job with this key.",
  },
  retry: {
    about: "put finished jobs into the queue again",
    argument: "[KEY]",
    options: changeOptions,
    more: aboutChange("failed jobs", "is not finished"),
  },
  abort: {
    about: "end waiting jobs, and ask running jobs to end",
    argument: "[KEY]",
    options: changeOptions,
    more: aboutChange("queued, scheduled and active jobs", "is finished"),
  },
  delete: {
    about: "delete jobs that do not run",
    argument: "[KEY]",
    options: changeOptions,
    more: aboutChange("complete, failed and aborted jobs", "runs"),
  },
  "run-now": {
    about: "make jobs due now that wait for their time",
    argument: "[KEY]",
    options: changeOptions,
    more: aboutChange("scheduled jobs", "does not wait for its time"),
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
} as const satisfies Record<string, CommandSpec>;
export type CommandName = keyof typeof commands;
export const commandNames = Object.keys(commands) as CommandName[];

/** What a command does, and which arguments it takes. */
interface CommandSpec {
  about: string;
  /** The word after the command; in brackets if it may be left out. */
  argument?: string;
  options: readonly OptionName[];
  more: string;
}

/** Returns the word that a command takes after its name; null if it takes none. */
export const argumentOf = (name: CommandName): string | null =>
  (commands[name] as CommandSpec).argument ?? null;

/** Returns the help of one command; for null, of all commands. */
export function helpText(name: CommandName | null): string {
  if (name === null) {
    const list = columns(commandNames.map((command) => [command, commands[command].about]));
    return `npm run saq -- <command> [options]\n\n${list}\n\nOptions of a command: npm run saq -- <command> --help`;
  }
  const { about, options: own, more } = commands[name];
  const list = columns(own.map((option) => aboutOptions[option]));
  const argument = argumentOf(name);
  return `npm run saq -- ${name} ${argument === null ? "" : `${argument} `}[options]\n\n${about}\n\n${list}\n\n${more}`;
}

const columns = (rows: readonly (readonly [string, string])[]): string => {
  const width = Math.max(...rows.map(([first]) => first.length));
  return rows.map(([first, second]) => `  ${first.padEnd(width)}   ${second}`).join("\n");
};
