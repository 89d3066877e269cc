/**
 * Reads the settings from the environment and checks them, once per process. A variable that is not set or empty in the
 * environment is taken from the file `.env` in the application's root.
 */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { parseEnv } from "node:util";
import { z } from "zod";
import { parsePostgresAddress, parseQueueAddress } from "../saq/index.js";
import { SettingsError } from "./errors.js";

// `npm run build` writes the compiled code one folder deeper, into backend/dist/app. Only production runs that code.
const isCompiled = !import.meta.filename.endsWith(".ts");

/** Absolute path of the application's root, the folder that contains backend/, .env and .data/. */
export const appRoot = path.resolve(import.meta.dirname, isCompiled ? "../../.." : "../..");

export interface Settings {
  isProduction: boolean;
  /** True in development, where the process restarts on every save and must therefore stop quickly. */
  underReloader: boolean;
  /** True while a command of the queue prints JSON: log lines go to standard error, and do not get between the JSON. */
  logsToStderr: boolean;
  host: string;
  port: number;
  logLevel: string;
  databaseUrl: string;
  /** Address of the queue's PostgreSQL or Redis: QUEUE_DSN, or the application's database if QUEUE_DSN is not set. */
  queueDsn: string;
  /** If undefined, mails are written to files in `outbox`. */
  smtpUrl: string | undefined;
  mailFrom: string;
  outbox: string;
  /** Login of the web UI. If undefined, the web UI is off in production. */
  auth: { user: string; password: string } | undefined;
}

const port = z.coerce.number("whole number").int().min(1).max(65_535);
const address = (parse: (text: string) => unknown) =>
  z.string().superRefine((text, { addIssue }) => {
    try {
      parse(text);
    } catch (error) {
      addIssue((error as Error).message);
    }
  });

const schema = z.object({
  NODE_ENV: z.enum(["development", "production", "test"]).default(isCompiled ? "production" : "development"),
  SAQ_RELOADER: z.string().optional(),
  SAQ_LOG_STDERR: z.string().optional(),
  HOST: z.string().optional(),
  PORT: port.default(8000),
  LOG_LEVEL: z.enum(["fatal", "error", "warn", "info", "debug", "trace", "silent"]).default("info"),
  DATABASE_URL: address(parsePostgresAddress).optional(),
  DB_PORT: port.optional(),
  DB_NAME: z.string().optional(),
  DB_PASSWORD: z.string().optional(),
  QUEUE_DSN: address(parseQueueAddress).optional(),
  SMTP_URL: z.url({ protocol: /^smtps?$/ }).optional(),
  MAIL_FROM: z.string().default("no-reply@localhost"),
  AUTH_USER: z.string().optional(),
  AUTH_PASSWORD: z.string().optional(),
});

/** The end of the error message for a wrong value: it says which values are allowed. */
const allowed: Record<string, string> = {
  NODE_ENV: "must be development, production or test",
  PORT: "must be a port, a whole number from 1 to 65535",
  LOG_LEVEL: "must be fatal, error, warn, info, debug, trace or silent",
  DB_PORT: "must be a port, a whole number from 1 to 65535",
  SMTP_URL: "must look like smtp://user:password@host:587",
};

/** Error messages never show these values: addresses contain passwords, and error messages end up in logs. */
const secret = new Set(["DATABASE_URL", "QUEUE_DSN", "SMTP_URL"]);

/**
 * Checks an environment and returns the settings. An empty value counts as not set.
 *
 * @throws SettingsError that names every setting that is wrong or missing
 */
export function parseSettings(environment: NodeJS.ProcessEnv): Settings {
  const given = Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== ""));
  const parsed = schema.safeParse(given);
  const problems = (parsed.error?.issues ?? []).map(({ path: [key], message }) => {
    const name = String(key);
    if (secret.has(name)) return `${name} ${allowed[name] ?? message}`;
    return `${name} ${allowed[name] ?? `is wrong (${message})`}, got ${JSON.stringify(given[name])}`;
  });
  const missing = ["DB_PORT", "DB_NAME", "DB_PASSWORD"].filter((name) => given[name] === undefined);
  if (given.DATABASE_URL === undefined && missing.length > 0) {
    problems.push(
      `no database: set DATABASE_URL, or run \`make db-start\`, which fills ${missing.join(", ")} in .env`,
    );
  }
  if ((given.AUTH_USER === undefined) !== (given.AUTH_PASSWORD === undefined)) {
    problems.push("AUTH_USER and AUTH_PASSWORD belong together: set both, or none");
  }
  if (!parsed.success || problems.length > 0) throw new SettingsError([...new Set(problems)]);

  const env = parsed.data;
  const isProduction = env.NODE_ENV === "production";
  // sslmode=disable: the server that `make db-start` starts has no TLS, and PGSSLMODE may demand it for other servers.
  const databaseUrl =
    env.DATABASE_URL ??
    `postgresql://postgres:${encodeURIComponent(env.DB_PASSWORD ?? "")}@127.0.0.1:${env.DB_PORT}/${encodeURIComponent(env.DB_NAME ?? "")}?sslmode=disable`;
  return {
    isProduction,
    underReloader: env.SAQ_RELOADER === "1",
    logsToStderr: env.SAQ_LOG_STDERR === "1",
    // In development only this machine can connect. Other people in the same network, in a café for example, cannot.
    host: env.HOST ?? (isProduction ? "0.0.0.0" : "127.0.0.1"),
    port: env.PORT,
    logLevel: env.LOG_LEVEL,
    databaseUrl,
    queueDsn: env.QUEUE_DSN ?? databaseUrl,
    smtpUrl: env.SMTP_URL,
    mailFrom: env.MAIL_FROM,
    outbox: path.join(appRoot, ".data", "outbox"),
    auth:
      env.AUTH_USER !== undefined && env.AUTH_PASSWORD !== undefined
        ? { user: env.AUTH_USER, password: env.AUTH_PASSWORD }
        : undefined,
  };
}

/**
 * Adds the values of a `.env` text to an environment, for variables that are not set or empty. process.loadEnvFile is
 * not used: with it, a variable that is set but empty hides the file's value.
 */
export function fillEnvironment(environment: NodeJS.ProcessEnv, text: string): void {
  // Some editors write a byte order mark at the start, which would become a part of the first variable's name.
  const values = parseEnv(text.replace(/^\uFEFF/, ""));
  for (const [name, value] of Object.entries(values)) environment[name] ||= value;
}

function loadSettings(): Settings {
  const file = path.join(appRoot, ".env");
  // Tests set their own variables: with a developer's .env they would send real mails.
  if (process.env.NODE_ENV !== "test" && existsSync(file)) fillEnvironment(process.env, readText(file));
  return parseSettings(process.env);
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new SettingsError([`${file} cannot be read: ${(error as Error).message}`]);
  }
}

export const settings = loadSettings();
