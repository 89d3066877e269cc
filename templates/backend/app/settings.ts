/** The environment, read and checked once. `.env` in the application's root fills in what the real environment lacks. */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { parseEnv } from "node:util";
import { z } from "zod";
import { parsePostgresAddress } from "../saq/index.js";
import { SettingsError } from "./errors.js";

// `npm run build` puts the compiled code one folder deeper, into backend/dist/app; only production runs it.
const isCompiled = !import.meta.filename.endsWith(".ts");

/** The folder that holds backend/, .env and .data/. */
export const appRoot = path.resolve(import.meta.dirname, isCompiled ? "../../.." : "../..");

export interface Settings {
  isProduction: boolean;
  /** Restarted on every save: a stop may not wait for long. */
  underReloader: boolean;
  host: string;
  port: number;
  logLevel: string;
  databaseUrl: string;
  /** Where the queue lives: QUEUE_DSN, or else the application's database. */
  queueDsn: string;
  /** Without one, mails are written to `outbox`. */
  smtpUrl: string | undefined;
  mailFrom: string;
  outbox: string;
  /** Guard of the web UI; without one, the UI is off in production. */
  auth: { user: string; password: string } | undefined;
}

const port = z.coerce.number("whole number").int().min(1).max(65_535);
const postgresUrl = z.string().superRefine((text, { addIssue }) => {
  try {
    parsePostgresAddress(text);
  } catch (error) {
    addIssue((error as Error).message);
  }
});

const schema = z.object({
  NODE_ENV: z.enum(["development", "production", "test"]).default(isCompiled ? "production" : "development"),
  SAQ_RELOADER: z.string().optional(),
  HOST: z.string().optional(),
  PORT: port.default(8000),
  LOG_LEVEL: z.enum(["fatal", "error", "warn", "info", "debug", "trace", "silent"]).default("info"),
  DATABASE_URL: postgresUrl.optional(),
  DB_PORT: port.optional(),
  DB_NAME: z.string().optional(),
  DB_PASSWORD: z.string().optional(),
  QUEUE_DSN: postgresUrl.optional(),
  SMTP_URL: z.url({ protocol: /^smtps?$/ }).optional(),
  MAIL_FROM: z.string().default("no-reply@localhost"),
  AUTH_USER: z.string().optional(),
  AUTH_PASSWORD: z.string().optional(),
});

/** What is allowed, in the words of the error. */
const allowed: Record<string, string> = {
  NODE_ENV: "must be development, production or test",
  PORT: "must be a port, a whole number from 1 to 65535",
  LOG_LEVEL: "must be fatal, error, warn, info, debug, trace or silent",
  DB_PORT: "must be a port, a whole number from 1 to 65535",
  SMTP_URL: "must look like smtp://user:password@host:587",
};

/** Addresses hold passwords, and errors end up in logs. */
const secret = new Set(["DATABASE_URL", "QUEUE_DSN", "SMTP_URL"]);

/**
 * Checks an environment. Empty values count as absent.
 *
 * @throws SettingsError naming every setting that is wrong or missing
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
  // The server that `make db-start` starts has no TLS, whatever PGSSLMODE asks of others.
  const databaseUrl =
    env.DATABASE_URL ??
    `postgresql://postgres:${encodeURIComponent(env.DB_PASSWORD ?? "")}@127.0.0.1:${env.DB_PORT}/${encodeURIComponent(env.DB_NAME ?? "")}?sslmode=disable`;
  return {
    isProduction,
    underReloader: env.SAQ_RELOADER === "1",
    // Nobody else in the café's network should reach a machine under development.
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
 * Fills in from the text of `.env` what an environment lacks. Not process.loadEnvFile: there a variable that is set
 * but empty hides the file's value.
 */
export function fillEnvironment(environment: NodeJS.ProcessEnv, text: string): void {
  // Some editors write a mark first, which would be a part of the first name.
  const values = parseEnv(text.replace(/^\uFEFF/, ""));
  for (const [name, value] of Object.entries(values)) environment[name] ||= value;
}

function loadSettings(): Settings {
  const file = path.join(appRoot, ".env");
  // Tests bring their own settings: a developer's .env would send their mails for real.
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
