import { parseArgs } from "node:util";
import editDistance from "damerau-levenshtein";
import { UsageError } from "./errors.js";

/** The flags that were given on the command line. A flag that was not given is absent. */
export interface Flags {
  directory?: string;
  yes?: boolean;
  install?: boolean;
  git?: boolean;
  frontend?: boolean;
  db?: string;
  queue?: string;
  port?: string;
  force?: boolean;
  dryRun?: boolean;
  json?: boolean;
  help?: boolean;
  version?: boolean;
}

const FLAG_OPTIONS = {
  yes: { type: "boolean", short: "y" },
  install: { type: "boolean" },
  "no-install": { type: "boolean" },
  git: { type: "boolean" },
  "no-git": { type: "boolean" },
  frontend: { type: "boolean" },
  "no-frontend": { type: "boolean" },
  db: { type: "string" },
  queue: { type: "string" },
  port: { type: "string" },
  force: { type: "boolean" },
  "dry-run": { type: "boolean" },
  json: { type: "boolean" },
  help: { type: "boolean", short: "h" },
  version: { type: "boolean", short: "v" },
} as const;
type FlagName = keyof typeof FLAG_OPTIONS;
const FLAG_NAMES = Object.keys(FLAG_OPTIONS) as FlagName[];

/**
 * Parses the arguments. If `--help` is among them, everything else is ignored. If a flag is given twice, the last one
 * counts.
 *
 * The strict mode of parseArgs is off, because its errors contain the flag's name only inside an English sentence, so
 * that no "Did you mean" hint can be made from it. This function refuses everything that the strict mode would refuse.
 * @throws UsageError
 */
export function parseFlags(argv: readonly string[], env: NodeJS.ProcessEnv): Flags {
  const { tokens } = parseArgs({
    args: [...argv],
    options: FLAG_OPTIONS,
    allowPositionals: true,
    strict: false,
    tokens: true,
  });
  if (tokens.some((token) => token.kind === "option" && token.name === "help")) return { help: true };

  const flags: Flags = {};
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    if (!isFlagName(token.name)) throw unknownFlag(argv[token.index] ?? token.rawName);
    const flag = FLAG_OPTIONS[token.name];
    if (flag.type === "string") {
      // Without "=", parseArgs takes the next argument as the value, even if it is another flag.
      const missing = token.value === undefined || (!token.inlineValue && token.value.startsWith("-"));
      if (missing)
        throw new UsageError(`--${token.name} needs a value, for example ${EXAMPLES[token.name]}.`);
    } else if (token.value !== undefined) {
      throw new UsageError(`--${token.name} takes no value, and got "${token.value}".${offHint(token.name)}`);
    }
    assign(flags, token.name, token.value);
  }
  if (positionals.length > 1) throw secondPositional(positionals);
  if (positionals[0] !== undefined) flags.directory = positionals[0];
  refuseFlagsNotPassedOn(flags, env);
  return flags;
}

const EXAMPLES: Partial<Record<FlagName, string>> = {
  db: "--db docker",
  queue: "--queue redis",
  port: "--port 8000",
};

function assign(flags: Flags, name: FlagName, value: string | undefined): void {
  switch (name) {
    case "install":
    case "git":
    case "frontend":
      flags[name] = true;
      return;
    case "no-install":
      flags.install = false;
      return;
    case "no-git":
      flags.git = false;
      return;
    case "no-frontend":
      flags.frontend = false;
      return;
    case "dry-run":
      flags.dryRun = true;
      return;
    case "db":
    case "queue":
    case "port":
      flags[name] = value;
      return;
    case "yes":
    case "force":
    case "json":
    case "help":
    case "version":
      flags[name] = true;
      return;
    default:
      name satisfies never;
  }
}

function isFlagName(name: string): name is FlagName {
  return Object.hasOwn(FLAG_OPTIONS, name);
}

function offHint(name: FlagName): string {
  return Object.hasOwn(FLAG_OPTIONS, `no-${name}`) ? ` To turn it off: --no-${name}.` : "";
}

function unknownFlag(argument: string): UsageError {
  const given = argument.split("=", 1)[0] ?? argument;
  const suggestion = closestFlag(given);
  const hint = suggestion ? `Did you mean --${suggestion}?` : "See create-saq-app --help for all flags.";
  return new UsageError(`There is no flag "${given}". ${hint}`);
}

/**
 * Returns the flag that is most similar to `given`, or undefined if none is similar. The comparison ignores hyphens,
 * underscores and case, and reads "skip" at the start as "no".
 */
export function closestFlag(given: string): string | undefined {
  const normalize = (text: string) => text.toLowerCase().replace(/[-_]/g, "");
  const typed = normalize(given).replace(/^skip/, "no");
  const similar = FLAG_NAMES.map((name) => ({ name, distance: editDistance(typed, normalize(name)).steps }))
    .filter(({ name, distance }) => distance <= Math.max(1, Math.floor(name.length / 3)))
    .sort((a, b) => a.distance - b.distance);
  return similar[0]?.name;
}

function secondPositional([first, second]: string[]): UsageError {
  return new UsageError(
    `Only one folder can be given, but there is a second argument: "${second}".\n` +
      "npm does not pass on flags before --, only their values. Write:\n" +
      `  npm create saq-app@latest ${first} -- --db docker`,
  );
}

/**
 * Refuses flags that npm did not pass on. `npm create saq-app my-app --no-install` runs this program without the flag:
 * npm treats it as one of its own settings, and it is visible only in the environment. To continue would do the
 * opposite of what the user wants. `--force` and `--json` are not checked, because a line in .npmrc looks the same in
 * the environment, and missing them does no harm.
 */
function refuseFlagsNotPassedOn(flags: Flags, env: NodeJS.ProcessEnv): void {
  // npm create, npm exec and npx all set this variable to the same value; npm_command differs between them.
  if (env.npm_lifecycle_event !== "npx") return;
  const isOff = (value: string | undefined) => value === "" || value === "false";
  const lost = [
    env.npm_config_dry_run === "true" && flags.dryRun === undefined && "--dry-run",
    env.npm_config_db !== undefined &&
      flags.db === undefined &&
      withValue("--db", env.npm_config_db, "docker"),
    env.npm_config_queue !== undefined &&
      flags.queue === undefined &&
      withValue("--queue", env.npm_config_queue, "redis"),
    env.npm_config_port !== undefined &&
      flags.port === undefined &&
      withValue("--port", env.npm_config_port, "8000"),
    isOff(env.npm_config_frontend) && flags.frontend === undefined && "--no-frontend",
    isOff(env.npm_config_install) && flags.install === undefined && "--no-install",
    env.npm_config_git === "false" && flags.git === undefined && "--no-git",
  ].filter((flag) => flag !== false);
  if (lost.length === 0) return;
  throw new UsageError(
    `npm did not pass on ${lost.join(", ")}. Put -- before the flags:\n` +
      `  npm create saq-app@latest ${flags.directory ?? "my-app"} -- ${lost.join(" ")}`,
  );
}

// npm sets "true" if it treats the flag's value as a separate argument. The message then shows the example value.
function withValue(flag: string, value: string, example: string): string {
  return `${flag} ${value === "true" ? example : value}`;
}
