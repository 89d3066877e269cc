import path from "node:path";
import { describe, expect, it } from "@jest/globals";
import { SettingsError } from "../app/errors.js";
import { appRoot, fillEnvironment, parseSettings } from "../app/settings.js";

const database = { DB_PORT: "55432", DB_NAME: "my_app", DB_PASSWORD: "p@ss/word" };
const url = "postgresql://user:secret@db.example.com:5432/app";

/** Returns the problems, one line each. */
function problemsOf(environment: Record<string, string>): string[] {
  try {
    parseSettings(environment);
  } catch (error) {
    expect(error).toBeInstanceOf(SettingsError);
    return (error as Error).message.split("\n  - ").slice(1);
  }
  return [];
}

describe("the database URL", () => {
  it("is built from the variables that `make db-start` writes", () => {
    expect(parseSettings(database).databaseUrl).toBe(
      "postgresql://postgres:p%40ss%2Fword@127.0.0.1:55432/my_app?sslmode=disable",
    );
  });

  it("is DATABASE_URL when it is set, with or without the other database variables", () => {
    expect(parseSettings({ ...database, DATABASE_URL: url }).databaseUrl).toBe(url);
    expect(parseSettings({ DATABASE_URL: url }).databaseUrl).toBe(url);
  });

  it("is used for the queue unless QUEUE_DSN is set; an empty variable counts as not set", () => {
    const other = "postgres://user@queue.example.com/queue";
    const redis = "redis://localhost:6379/0";
    expect(parseSettings({ DATABASE_URL: url }).queueDsn).toBe(url);
    expect(parseSettings({ DATABASE_URL: url, QUEUE_DSN: "" }).queueDsn).toBe(url);
    expect(parseSettings({ DATABASE_URL: url, QUEUE_DSN: other }).queueDsn).toBe(other);
    expect(parseSettings({ DATABASE_URL: url, QUEUE_DSN: redis })).toMatchObject({
      databaseUrl: url,
      queueDsn: redis,
    });
    expect(parseSettings({ ...database, DATABASE_URL: "" }).databaseUrl).toContain("127.0.0.1:55432");
  });

  it("causes an error that says what to do when it is missing", () => {
    expect(problemsOf({ DB_PORT: "55432" })).toEqual([
      "no database: set DATABASE_URL, or run `make db-start`, which fills DB_NAME, DB_PASSWORD in .env",
    ]);
  });
});

describe("the file .env", () => {
  it("sets only the variables that are missing or empty in the environment", () => {
    const environment = { DB_PASSWORD: "", DB_PORT: "1" };
    fillEnvironment(environment, "DB_PASSWORD=secret\nDB_PORT=2\nDB_NAME=app\n");
    expect(environment).toEqual({ DB_PASSWORD: "secret", DB_PORT: "1", DB_NAME: "app" });
  });
});

it("reads a .env file that begins with a byte order mark and has Windows line endings", () => {
  const environment = {};
  fillEnvironment(environment, "\uFEFFPORT=8123\r\nDB_NAME=app\r\n");
  expect(environment).toEqual({ PORT: "8123", DB_NAME: "app" });
});

it("SAQ_LOG_STDERR=1, which commands of the queue set when they print JSON, sends log lines to standard error", () => {
  expect(parseSettings({ ...database, SAQ_LOG_STDERR: "1" }).logsToStderr).toBe(true);
  expect(parseSettings(database).logsToStderr).toBe(false);
});

describe("the default settings", () => {
  it("make the API listen on 127.0.0.1:8000 and write mails to .data/outbox in development", () => {
    expect(parseSettings({ ...database, NODE_ENV: "development" })).toMatchObject({
      isProduction: false,
      host: "127.0.0.1",
      port: 8000,
      logLevel: "info",
      smtpUrl: undefined,
      outbox: path.join(appRoot, ".data/outbox"),
      auth: undefined,
    });
  });

  it("make the API listen on all addresses in production, unless HOST names one", () => {
    expect(parseSettings({ ...database, NODE_ENV: "production" })).toMatchObject({
      isProduction: true,
      host: "0.0.0.0",
    });
    expect(parseSettings({ ...database, NODE_ENV: "production", HOST: "10.0.0.1" }).host).toBe("10.0.0.1");
  });
});

describe("the check of the settings", () => {
  it("reports all problems at once", () => {
    expect(
      problemsOf({
        NODE_ENV: "staging",
        PORT: "80a",
        LOG_LEVEL: "loud",
        DATABASE_URL: "mysql://x",
        QUEUE_DSN: "redis://localhost/one",
        AUTH_USER: "a",
      }),
    ).toEqual([
      'NODE_ENV must be development, production or test, got "staging"',
      'PORT must be a port, a whole number from 1 to 65535, got "80a"',
      'LOG_LEVEL must be fatal, error, warn, info, debug, trace or silent, got "loud"',
      "DATABASE_URL must begin with postgresql:// or postgres://",
      expect.stringContaining("QUEUE_DSN has a database that is not a whole number of 0 or more"),
      "AUTH_USER and AUTH_PASSWORD belong together: set both, or none",
    ]);
  });

  it.each(["0", "65536", "-1", "8000.5", " "])("refuses the port %j", (port) => {
    expect(problemsOf({ ...database, PORT: port })).toHaveLength(1);
  });

  it("never shows a password in an error", () => {
    const problems = problemsOf({
      DATABASE_URL: "http://user:secret@host/db",
      QUEUE_DSN: "user:secret@host",
      SMTP_URL: "http://user:secret@host",
    });
    expect(problems).toHaveLength(3);
    expect(problems.join()).not.toContain("secret");
  });
});
