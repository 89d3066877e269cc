import { basename, relative, resolve, sep } from "node:path";
import { parsePostgresAddress } from "../../templates/backend/saq/postgres-address.js";
import { UsageError } from "./errors.js";
import type { Flags } from "./flags.js";

const DATABASES = ["auto", "embedded", "docker", "url"] as const;
type Database = (typeof DATABASES)[number];
const QUEUES = ["postgres", "redis"] as const;
type QueueStorage = (typeof QUEUES)[number];

/** All decisions about the project. After they are made, the program asks and guesses nothing more. */
export interface Options {
  project: Project;
  frontend: boolean;
  db: Database;
  /** The URL given with `--db postgresql://...`. With null and `db` "url", the user must fill in the line in .env. */
  databaseUrl: string | null;
  /** Where the queue stores its jobs. The application's own data are in PostgreSQL in any case. */
  queue: QueueStorage;
  /** TCP port of the API. */
  port: number;
  install: boolean;
  git: boolean;
  force: boolean;
  dryRun: boolean;
}

export interface Project {
  /** Absolute path of the folder. */
  directory: string;
  /** The last part of `directory`, with the case and characters that the user typed. */
  title: string;
  /** The title as a package name without scope: lower-case letters, digits and hyphens. */
  slug: string;
  /** `slug`, with the scope if one was given. */
  packageName: string;
  /** `slug` as a PostgreSQL database name. */
  databaseName: string;
}

/** The answers to the prompts. Each of them can also be given by a flag. */
export interface Answers {
  directory?: string;
  frontend?: boolean;
  db?: string;
  install?: boolean;
}

export const DEFAULTS = {
  directory: "my-saq-app",
  frontend: true,
  db: "auto",
  queue: "postgres",
  port: 8000,
  install: true,
  git: true,
} as const;

/** Port of the front end. Vite runs with `strictPort`, so the API must not use the same port. */
export const FRONTEND_PORT = 5173;

/** Maximum length in characters. PostgreSQL silently cuts longer identifiers, and the slug also names the database. */
const MAX_SLUG_LENGTH = 63;

/**
 * Returns the options. A flag has priority over an answer, and an answer over a default.
 * @throws UsageError that names the wrong value and the allowed values
 */
export function resolveOptions(flags: Flags, answers: Answers, cwd: string): Options {
  const frontend = flags.frontend ?? answers.frontend ?? DEFAULTS.frontend;
  return {
    project: resolveProject(flags.directory ?? answers.directory ?? DEFAULTS.directory, cwd),
    frontend,
    ...resolveDatabase(flags.db ?? answers.db ?? DEFAULTS.db),
    queue: resolveQueue(flags.queue ?? DEFAULTS.queue),
    port: resolvePort(flags.port, frontend),
    install: flags.install ?? answers.install ?? DEFAULTS.install,
    git: flags.git ?? DEFAULTS.git,
    force: flags.force ?? false,
    dryRun: flags.dryRun ?? false,
  };
}

/**
 * Returns the folder and the names of a project, made from the folder that the user typed. Examples: `my-app`, `.`,
 * `/srv/My App`, `@scope/name` (folder `name`).
 * @throws UsageError if the text is not allowed as a folder, or if no package name can be made from it
 */
export function resolveProject(typed: string, cwd: string): Project {
  if (typed.trim() === "") throw new UsageError("The folder's name is empty. Give one, for example my-app.");
  const invisible = typed.match(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}\p{Cs}]/u)?.[0];
  if (invisible !== undefined) {
    const code = invisible.codePointAt(0)?.toString(16).toUpperCase().padStart(4, "0");
    throw new UsageError(
      `The folder ${JSON.stringify(typed)} contains the control character U+${code}. Use visible characters.`,
    );
  }
  if (typed.split(/[/\\]/).includes("..")) {
    throw new UsageError(
      `The folder "${typed}" contains "..". Go to the parent folder and give only the name, or give an absolute path.`,
    );
  }
  const scoped = /^@([^/\\]+)\/([^/\\]+)$/.exec(typed);
  const directory = resolve(cwd, scoped?.[2] ?? typed);
  const title = basename(directory);
  const slug = toSlug(title, typed);
  return {
    directory,
    title,
    slug,
    packageName: scoped?.[1] === undefined ? slug : `@${toSlug(scoped[1], typed)}/${slug}`,
    databaseName: toDatabaseName(slug),
  };
}

/**
 * Databases that PostgreSQL creates itself. An application does not use them: template0 accepts no connections, and
 * PostgreSQL copies the contents of template1 into every new database.
 */
const SYSTEM_DATABASES = ["postgres", "template0", "template1"];

function toDatabaseName(slug: string): string {
  const name = slug.replaceAll("-", "_");
  return SYSTEM_DATABASES.includes(name) ? `${name}_app` : name;
}

function toSlug(name: string, typed: string): string {
  const slug = name
    .normalize("NFKD")
    .replace(/[\p{M}'’]/gu, "")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "");
  const where = name === typed ? `"${typed}"` : `"${name}" (from "${typed}")`;
  if (slug === "") {
    throw new UsageError(
      `No package name can be made from ${where}: it needs at least one letter a-z or digit. For example: my-app.`,
    );
  }
  if (slug.length > MAX_SLUG_LENGTH) {
    throw new UsageError(
      `The name ${where} is ${slug.length} characters long. At most ${MAX_SLUG_LENGTH} are allowed, ` +
        "because the database gets the same name.",
    );
  }
  return slug;
}

function resolveDatabase(value: string): Pick<Options, "db" | "databaseUrl"> {
  if (/^postgres(ql)?:/i.test(value)) return { db: "url", databaseUrl: validateUrl(value) };
  const db = DATABASES.find((known) => known === value);
  if (db === undefined) {
    throw new UsageError(
      `--db is "${value}". Allowed: auto, embedded, docker, url, or a URL such as ` +
        "postgresql://user:password@host:5432/name.",
    );
  }
  return { db, databaseUrl: null };
}

// No message contains the value, because it may contain a password.
function validateUrl(value: string): string {
  const special = /[\s"'`#\\\p{Cc}]/u.exec(value)?.[0];
  if (special !== undefined) {
    const encoded = `%${special.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`;
    throw new UsageError(
      `The URL given to --db contains ${JSON.stringify(special)}, which has another meaning in .env files. ` +
        `Write it as ${encoded}.`,
    );
  }
  try {
    parsePostgresAddress(value, {});
  } catch (error) {
    throw new UsageError(`The URL given to --db ${(error as Error).message}`);
  }
  return value;
}

function resolveQueue(value: string): QueueStorage {
  const queue = QUEUES.find((known) => known === value);
  if (queue !== undefined) return queue;
  if (/^(redis|rediss|unix|postgres|postgresql)(\+\w+)?:/i.test(value)) {
    throw new UsageError(
      "--queue takes postgres or redis, and no URL. To use a server of your own, write its URL as QUEUE_DSN in .env.",
    );
  }
  throw new UsageError(`--queue is "${value}". Allowed: postgres, redis.`);
}

function resolvePort(value: string | undefined, frontend: boolean): number {
  if (value === undefined) return DEFAULTS.port;
  const port = Number(value);
  if (!/^\d+$/.test(value) || port < 1 || port > 65_535) {
    throw new UsageError(`--port is "${value}". Allowed: a whole number from 1 to 65535.`);
  }
  if (frontend && port === FRONTEND_PORT) {
    throw new UsageError(
      `--port ${FRONTEND_PORT} is the front end's port. Choose another port, or add --no-frontend.`,
    );
  }
  return port;
}

export interface AppliedDefault {
  option: string;
  value: string;
  /** The flag that changes the value. */
  flag: string;
}

/** Returns the defaults that are used because no flag was given, each with the flag that changes it. */
export function appliedDefaults(flags: Flags): AppliedDefault[] {
  const all: (AppliedDefault | false)[] = [
    flags.directory === undefined && {
      option: "folder",
      value: DEFAULTS.directory,
      flag: "create-saq-app <folder>",
    },
    flags.frontend === undefined && { option: "front end", value: "yes", flag: "--no-frontend" },
    flags.db === undefined && {
      option: "database",
      value: "Docker if it runs, else embedded",
      flag: "--db embedded|docker|url",
    },
    flags.queue === undefined && { option: "queue", value: "in PostgreSQL", flag: "--queue postgres|redis" },
    flags.port === undefined && { option: "API port", value: String(DEFAULTS.port), flag: "--port <number>" },
    flags.install === undefined && { option: "npm install", value: "yes", flag: "--no-install" },
    flags.git === undefined && { option: "git commit", value: "yes", flag: "--no-git" },
  ];
  return all.filter((entry) => entry !== false);
}

/** Returns the folder as a user would type it in `cwd`: a relative path if it is inside `cwd`, else the full path. */
export function displayPath(directory: string, cwd: string): string {
  const inside = directory.startsWith(cwd.endsWith(sep) ? cwd : cwd + sep);
  return inside ? relative(cwd, directory) : directory;
}
