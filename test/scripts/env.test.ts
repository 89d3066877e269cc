import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseEnv } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import { databaseUrl, ensureEnv, queueAddress, readEnv, writeEnv } from "../../templates/scripts/env.js";
import { openFolder } from "./support/folders.js";

describe("the settings file", () => {
  let root: string;
  const file = () => join(root, ".env");
  const text = () => readFileSync(file(), "utf8");

  beforeEach(() => {
    root = openFolder();
    writeFileSync(join(root, "package.json"), '{ "name": "@scope/My-App.1" }');
  });
  afterEach(() => {
    delete process.env.SAQ_TEST_VALUE;
    rmSync(root, { recursive: true });
  });

  it("is created from .env.example, readable by its owner only, with random values filled in", () => {
    writeFileSync(join(root, ".env.example"), "# first\nDB_PASSWORD=\n# second\nPORT=8000\n");
    const env = ensureEnv(root);
    expect(statSync(file()).mode & 0o777).toBe(0o600);
    expect(text()).toMatch(/^# first\nDB_PASSWORD=[0-9a-f]{32}\n# second\nPORT=8000\n/);
    expect(env).toMatchObject({
      PORT: "8000",
      DB_PORT: "55432",
      DB_NAME: "my_app_1",
      DB_PASSWORD: expect.any(String),
    });
  });

  it("is not changed when it is complete", () => {
    ensureEnv(root);
    const before = text();
    ensureEnv(root);
    expect(text()).toBe(before);
  });

  it("gets a new password and project id each time it is created", () => {
    const first = ensureEnv(root);
    rmSync(file());
    const second = ensureEnv(root);
    expect(second.DB_PASSWORD).not.toBe(first.DB_PASSWORD);
    expect(second.PROJECT_ID).not.toBe(first.PROJECT_ID);
  });

  it("is overridden by the environment, and empty values count as absent", () => {
    writeFileSync(file(), "SAQ_TEST_VALUE=file\nEMPTY=\n");
    expect(readEnv(root)).toMatchObject({ SAQ_TEST_VALUE: "file" });
    expect("EMPTY" in readEnv(root)).toBe(false);
    process.env.SAQ_TEST_VALUE = "environment";
    expect(readEnv(root).SAQ_TEST_VALUE).toBe("environment");
    process.env.SAQ_TEST_VALUE = "";
    expect(readEnv(root).SAQ_TEST_VALUE).toBe("file");
  });

  it("keeps its password when DB_PASSWORD in the environment is empty", () => {
    const { DB_PASSWORD } = ensureEnv(root);
    const before = text();
    process.env.DB_PASSWORD = "";
    try {
      expect(ensureEnv(root).DB_PASSWORD).toBe(DB_PASSWORD);
    } finally {
      delete process.env.DB_PASSWORD;
    }
    expect(text()).toBe(before);
  });

  it.each([
    ["an open quotation mark above it", 'DB_NAME="app\nDB_PASSWORD="kept"\nDB_PORT=1\n'],
    ["a second, empty line below it", "DB_NAME=app\nDB_PASSWORD=kept\nDB_PORT=1\nDB_PASSWORD=\n"],
  ])("keeps a password that is not read because of %s, and reports it", (_why, written) => {
    writeFileSync(file(), `PROJECT_ID=1\n${written}`);
    expect(() => ensureEnv(root)).toThrow(/The line DB_PASSWORD= in .* is not read: a quotation mark/);
    expect(text()).toBe(`PROJECT_ID=1\n${written}`);
  });

  it("may begin with a byte order mark, and is refused when it is not UTF-8", () => {
    writeFileSync(file(), "\uFEFFPORT=8123\r\nDB_NAME=app\r\n");
    expect(readEnv(root)).toMatchObject({ PORT: "8123", DB_NAME: "app" });
    writeEnv(root, "PORT", "8124");
    expect(readEnv(root)).toMatchObject({ PORT: "8124", DB_NAME: "app" });
    expect(text().match(/PORT=/g)).toHaveLength(1);
    writeFileSync(file(), Buffer.from("\uFEFFPORT=8123\r\n", "utf16le"));
    expect(() => readEnv(root)).toThrow(`${file()} is not in UTF-8. Save it as UTF-8`);
  });

  it.each(["postgres", "template0", "template1"])("a project named %s has its own database name", (name) => {
    writeFileSync(join(root, "package.json"), JSON.stringify({ name }));
    expect(ensureEnv(root).DB_NAME).toBe(`${name}_app`);
  });

  it("is refused when it is a folder", () => {
    mkdirSync(file());
    expect(() => ensureEnv(root)).toThrow(`${file()} is a folder, but it must be a file.`);
  });

  it("keeps its other lines, their order and the file mode when one value changes", () => {
    writeFileSync(file(), "# DB_PORT=1\nA=1\nDB_PORT=2 # mine\nB=3", { mode: 0o600 });
    writeEnv(root, "DB_PORT", "55433");
    expect(text()).toBe("# DB_PORT=1\nA=1\nDB_PORT=55433\nB=3");
    writeEnv(root, "C", "4");
    expect(text()).toBe("# DB_PORT=1\nA=1\nDB_PORT=55433\nB=3\nC=4\n");
    expect(statSync(file()).mode & 0o777).toBe(0o600);
  });

  it.each(["plain", "p#1 x", "it's", 'say "hi"', "a$&b", "postgresql://u:p%40@h:1/d?sslmode=require"])(
    "stores %j so that the same value is read back",
    (value) => {
      writeFileSync(file(), "KEY=old\nREST=1\n");
      writeEnv(root, "KEY", value);
      expect(parseEnv(text())).toEqual({ KEY: value, REST: "1" });
    },
  );
});

describe("the database's address", () => {
  it("is DATABASE_URL, or is built from escaped parts", () => {
    expect(databaseUrl({ DATABASE_URL: "postgresql://h/d", DB_PORT: "1" })).toBe("postgresql://h/d");
    const derived = databaseUrl({ DB_PASSWORD: "p@ss/w", DB_PORT: "55432", DB_NAME: "my_app" });
    expect(derived).toBe("postgresql://postgres:p%40ss%2Fw@127.0.0.1:55432/my_app?sslmode=disable");
  });
});

describe("the queue's address", () => {
  it("is the database unless QUEUE_DSN names another one, or a Redis", () => {
    const database = { DB_PASSWORD: "p", DB_PORT: "55432", DB_NAME: "my_app" };
    expect(queueAddress(database)).toMatchObject({ storage: "postgres", address: { database: "my_app" } });
    const queue = queueAddress({ ...database, QUEUE_DSN: "postgresql://h/queue" });
    expect(queue).toMatchObject({ storage: "postgres", address: { database: "queue" } });
    expect(queueAddress({ ...database, QUEUE_DSN: "redis://h/1" })).toMatchObject({
      storage: "redis",
      address: { nodes: [{ host: "h", port: 6379 }], database: 1 },
    });
  });

  it("is refused with the name of the setting and without its password", () => {
    const attempt = () => queueAddress({ QUEUE_DSN: "redis://:s3cret@h/x" });
    expect(attempt).toThrow("QUEUE_DSN (from .env) has a database that is not a whole number of 0 or more");
    expect(attempt).not.toThrow(/s3cret/);
  });
});
