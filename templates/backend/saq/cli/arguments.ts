/**
 * Parses the command line into a command and its flags. Anything that it does not understand is refused (exit code 2).
 */
import { parseArgs } from "node:util";
import { closest } from "./closest.js";
import {
  argumentOf,
  type CommandName,
  commandNames,
  commands,
  type OptionName,
  options,
} from "./commands.js";
import { type CliError, usageError } from "./errors.js";

export interface Flags {
  /** Number of processes, the first one included. */
  workers: number;
  /** Names of queues; empty means all. */
  queues: readonly string[];
  /** Path of the module that exports the queues; undefined: the default module. */
  config: string | undefined;
  yes: boolean;
  /** Whether Python workers use the tables; undefined: not specified. */
  python: boolean | undefined;
  /** Set by -v and by -d. */
  debug: boolean;
  /** The word after the command, for commands that take one. */
  argument: string | undefined;
  statuses: readonly string[];
  /** The other options with a value, as they were typed. */
  values: Readonly<Partial<Record<OptionName, string>>>;
  json: boolean;
}

export type Call = { help: CommandName | null } | { command: CommandName; flags: Flags };

/**
 * Parses the arguments after the program's name. `--help` takes precedence over everything else on the command line.
 *
 * The strict mode of parseArgs is off because its errors contain the option's name only inside an English sentence,
 * from which "Did you mean" cannot take it. Everything that the strict mode would refuse is refused here.
 *
 * @throws CliError with exit code 2
 */
export function parseCall(argv: readonly string[]): Call {
  const { tokens } = parseArgs({
    args: [...argv],
    options,
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  const words = tokens.flatMap((token) => (token.kind === "positional" ? [token.value] : []));
  const wantsHelp = tokens.some((token) => token.kind === "option" && token.name === "help");
  if (wantsHelp || words.length === 0) return { help: commandOf(words)?.command ?? null };
  // Unknown options are checked before the command: the word after an unknown option may have been its value.
  for (const token of tokens)
    if (token.kind === "option" && !Object.hasOwn(options, token.name))
      throw unknownOption(words, token.name, argv[token.index] ?? token.rawName);
  const { command, argument } = findCommand(words);
  const flags = {
    workers: 1,
    queues: [] as string[],
    config: undefined as string | undefined,
    yes: false,
    python: undefined as boolean | undefined,
    debug: false,
    argument,
    statuses: [] as string[],
    values: {} as Partial<Record<OptionName, string>>,
    json: false,
  };
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    const name = findOption(command, token.name, argv[token.index] ?? token.rawName);
    if (options[name].type === "boolean") {
      if (token.value !== undefined) throw usageError(`--${name} takes no value, got "${token.value}".`);
      if (name === "yes") flags.yes = true;
      else if (name === "json") flags.json = true;
      else if (name === "python") flags.python = true;
      else if (name === "no-python") flags.python = false;
      else flags.debug = true;
      continue;
    }
    // Without "=", parseArgs takes the next argument as the value, even another option.
    if (!token.value || (!token.inlineValue && token.value.startsWith("-")))
      throw usageError(`--${name} needs a value, for instance --${name} ${examples[name] ?? "..."}.`);
    if (name === "workers") flags.workers = parseCount(token.value);
    else if (name === "queues") flags.queues.push(token.value);
    else if (name === "config") flags.config = token.value;
    else if (name === "status") flags.statuses.push(...token.value.split(","));
    else {
      const other = flags.values[name];
      if (other !== undefined)
        throw usageError(`--${name} takes one value, got "${other}" and "${token.value}".`);
      flags.values[name] = token.value;
    }
  }
  return { command, flags };
}

const examples: Partial<Record<OptionName, string>> = {
  workers: "4",
  queues: "default",
  config: "app/queue/index.ts",
  queue: "default",
  status: "failed",
  task: "sendMail",
  error: "ECONNREFUSED",
  "key-prefix": "welcome:",
  "enqueued-after": "2h",
  "enqueued-before": "2026-11-19",
  limit: "100",
};

interface FoundCommand {
  command: CommandName;
  argument: string | undefined;
}

/** Returns the command, and the word after it if it takes one; null if these words are no command. */
function commandOf(words: readonly string[]): FoundCommand | null {
  const command = commandNames.find((name) => name === words.join(" "));
  if (command) return { command, argument: undefined };
  const withArgument = commandNames.find((name) => name === words[0] && argumentOf(name) !== null);
  return withArgument && words.length === 2 ? { command: withArgument, argument: words[1] } : null;
}

function findCommand(words: readonly string[]): FoundCommand {
  const typed = words.join(" ");
  const found = commandOf(words);
  if (found) {
    const argument = argumentOf(found.command);
    if (argument === null || argument.startsWith("[") || found.argument !== undefined) return found;
    throw usageError(`"${found.command}" needs a ${argument}: npm run saq -- ${found.command} ${argument}`);
  }
  const known = commandNames.find((name) => name === words[0] && argumentOf(name) !== null);
  if (known)
    throw usageError(
      `"${known}" takes one KEY, got ${words
        .slice(1)
        .map((word) => `"${word}"`)
        .join(", ")}.`,
    );
  const suggestion =
    closest(typed, commandNames) ?? commandNames.find((name) => name.startsWith(`${typed} `));
  const hint = suggestion ? `Did you mean "${suggestion}"?` : `Commands: ${commandNames.join(", ")}.`;
  throw usageError(`There is no command "${typed}". ${hint}`);
}

function findOption(command: CommandName, name: string, typed: string): OptionName {
  const found = commands[command].options.find((option) => option === name);
  if (found) return found;
  throw unknownOption([command], name, typed);
}

function unknownOption(words: readonly string[], name: string, typed: string): CliError {
  const line = words.join(" ");
  const command = commandNames.find((known) => line === known || line.startsWith(`${known} `));
  const suggestion = closest(name, command ? commands[command].options : Object.keys(options));
  const hint = suggestion
    ? `Did you mean --${suggestion}?`
    : `See: npm run saq -- ${command ? `${command} ` : ""}--help`;
  return usageError(
    `There is no option ${typed.split("=", 1)[0]}${command ? ` of "${command}"` : ""}. ${hint}`,
  );
}

function parseCount(text: string): number {
  const count = Number(text);
  if (Number.isInteger(count) && count >= 1 && count <= 1_000) return count;
  throw usageError(`--workers must be a whole number of 1 to 1000, got "${text}".`);
}
