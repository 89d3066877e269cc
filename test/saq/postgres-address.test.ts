/**
 * Addresses as psql and pg take them: one table for the engine, the settings and the scripts, which share the parser.
 */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "@jest/globals";
import pg from "pg";
import { defineQueue } from "../../templates/backend/saq/config/index.js";
import { clientConfig } from "../../templates/backend/saq/postgres/connection/client-settings.js";
import {
  clientConfigs,
  libpqVariables,
  nameOfAddress,
  type PostgresAddress,
  parsePostgresAddress,
} from "../../templates/backend/saq/postgres-address.js";
import { databaseAddress } from "../../templates/scripts/env.js";
import { openFolder } from "../scripts/support/folders.js";

// The settings module reads the settings when it is loaded.
process.env.DATABASE_URL = "postgresql://none";
const { parseSettings } = await import("../../templates/backend/app/settings.js");

const ownVariables = Object.keys(process.env).filter((name) => name.startsWith("PG"));
const before = { ...process.env };

beforeEach(() => {
  for (const name of ownVariables) delete process.env[name];
  process.env.USER = "os";
});
afterEach(() => {
  for (const name of Object.keys(process.env)) if (/^PG/.test(name)) delete process.env[name];
  Object.assign(process.env, before);
});

/** Returns one line: user, password, hosts with ports, database. */
function show({ hosts, user, password, database }: PostgresAddress): string {
  const list = hosts.map(({ host, port }) => `${host}|${port}`).join(" ");
  return `${user}${password === undefined ? "" : `:${password}`} ${list} ${database ?? "-"}`;
}

type Variables = Record<string, string>;
const all: Variables = { PGHOST: "eh", PGPORT: "7", PGUSER: "eu", PGPASSWORD: "ep", PGDATABASE: "ed" };

describe("a PostgreSQL address", () => {
  it.each<[address: string, meaning: string, environment?: Variables]>([
    ["postgresql://u:p@h:1/d", "u:p h|1 d"],
    ["postgres://u:p@h/d", "u:p h|5432 d"],
    ["PostGreSQL://u@h/d", "u h|5432 d"],
    ["postgresql://", "os localhost|5432 -"],
    ["postgresql://h", "os h|5432 -"],
    ["postgresql://h:6", "os h|6 -"],
    ["postgresql://h/", "os h|5432 -"],
    ["postgresql:///d", "os localhost|5432 d"],
    ["postgresql://u@h", "u h|5432 -"],
    // Sockets.
    ["postgresql:///d?host=/socket", "os /socket|5432 d"],
    ["postgresql:///d?host=/socket&port=6", "os /socket|6 d"],
    ["postgresql://u:p@/d?host=/socket", "u:p /socket|5432 d"],
    ["postgresql://%2Fvar%2Frun/d", "os /var/run|5432 d"],
    ["postgresql://u:p@%2Fsocket:6/d", "u:p /socket|6 d"],
    ["postgresql://localhost:5/d?host=%2Fsocket", "os /socket|5 d"],
    // IPv6.
    ["postgresql://[::1]/d", "os ::1|5432 d"],
    ["postgresql://u:p@[2001:db8::7]:6/d", "u:p 2001:db8::7|6 d"],
    // Several hosts.
    ["postgresql://a:1,b:2/d", "os a|1 b|2 d"],
    ["postgresql://u:p@a,b:2,[::1]:3/d", "u:p a|5432 b|2 ::1|3 d"],
    ["postgresql://a,b/d?port=6", "os a|6 b|6 d"],
    ["postgresql:///d?host=a,/socket&port=1,2", "os a|1 /socket|2 d"],
    // Special characters.
    ["postgresql://u%40x:p%40%3A%2F%3F%23@h/d", "u@x:p@:/?# h|5432 d"],
    ["postgresql://u:100%@h/d", "u:100% h|5432 d"],
    ["postgresql://u:%zz%2F@h/d", "u:%zz/ h|5432 d"],
    ["postgresql://u:%C3%A9%FF@h/d", "u:%C3%A9%FF h|5432 d"],
    ["postgresql://u:p@ss@h/d", "u:p@ss h|5432 d"],
    ["postgresql://u:a:b@h/d", "u:a:b h|5432 d"],
    ["postgresql://u:p#w@h/d", "u:p#w h|5432 d"],
    ["postgresql://u:p?w@h/d", "u:p?w h|5432 d"],
    ["postgresql://u:p+w@h/d", "u:p+w h|5432 d"],
    ["postgresql://u:pässwörd ®@h/d", "u:pässwörd ® h|5432 d"],
    ["postgresql://u@h/my%20d%2Fb", "u h|5432 my d/b"],
    // Parameters take precedence over what stands before the question mark.
    ["postgresql://h/d?user=u&password=p%26w", "u:p&w h|5432 d"],
    ["postgresql://h?user=a@b", "a@b h|5432 -"],
    ["postgresql://x:y@h/d?user=u&dbname=e", "u:y h|5432 e"],
    ["postgresql://h/d?schema=public&pgbouncer=true&connection_limit=1", "os h|5432 d"],
    // The environment, as pg reads it.
    ["postgresql://", "eu:ep eh|7 ed", all],
    ["postgresql://u:p@h:1/d", "u:p h|1 d", all],
    ["postgresql://u@h/d", "u:ep h|7 d", all],
    ["postgresql:///d?host=/socket", "eu:ep /socket|7 d", all],
    ["postgresql:///d", "os a|1 b|2 d", { PGHOST: "a,b", PGPORT: "1,2" }],
    ["postgresql:///d", "os /socket|5432 d", { PGHOST: "/socket" }],
    ["postgresql://u@h/d", "u h|5432 d", { PGPASSFILE: "/nowhere" }],
  ])("%s is read as %s", (address, meaning, environment = {}) => {
    expect(show(parsePostgresAddress(address, { USER: "os", ...environment }))).toBe(meaning);
    // Everything that reads an address must read it in the same way.
    Object.assign(process.env, environment);
    const { candidates } = clientConfig(address, { noStartupOptions: true });
    const [{ host, port, user, password, database } = {}] = candidates;
    expect(meaning).toContain(`${host}|${port}`);
    expect(`${user}${password === undefined ? "" : `:${password}`}`).toBe(meaning.split(/ \S+\|/)[0]);
    expect(meaning).toMatch(database === user ? /-$|d$/ : new RegExp(`${database}$`));
    expect(defineQueue({ name: "q", dsn: address, tasks: {} }).dsn).toBe(address);
    expect(parseSettings({ DATABASE_URL: address }).databaseUrl).toBe(address);
    expect(show(databaseAddress({ USER: "os", ...environment, DATABASE_URL: address }))).toBe(meaning);
  });

  it.each([
    "postgresql://u:p@h:1/d",
    "postgres://u:p@h/d",
    "postgresql:///d?host=/socket&port=6",
    "postgresql://u:p@/d?host=/socket",
    "postgresql://u:p@%2Fsocket:6/d",
    "postgresql://u:p@[2001:db8::7]:6/d",
    "postgresql://u%40x:p%40%3A%2F%3F%23@h/d",
    "postgresql://u:100%@h/d",
    "postgresql://u:p@ss@h/d",
    "postgresql://h/d?user=u&password=p%26w",
    "postgresql://h/d?application_name=my+app&options=-c%20geqo%3Doff",
    "postgresql://h/d?ssl=true",
    "postgresql://h/d?ssl=no-verify",
    "postgresql://h/d?sslmode=disable",
    "postgresql://h/d?sslmode=no-verify",
    "postgresql://h/d?sslmode=verify-full",
    "postgresql://h/d?sslmode=require&uselibpqcompat=true",
    "postgresql://h/d?statement_timeout=7000&lock_timeout=3&query_timeout=9",
  ])("%s gives the same parameters as in pg itself", (address) => {
    const parametersOf = (config: pg.ClientConfig) => {
      const client = new pg.Client(config) as unknown as {
        connectionParameters: Record<string, unknown> & { password: unknown };
      };
      const { ssl, password, statement_timeout, lock_timeout, query_timeout, ...others } =
        client.connectionParameters;
      const timeouts = [statement_timeout, lock_timeout, query_timeout].map(Number);
      return { ...others, ssl: ssl === true ? {} : ssl, password, timeouts, connect_timeout: 0 };
    };
    // pg read USER when it was loaded, so the test sets PGUSER instead.
    process.env.PGUSER = "os";
    const [ours = {}] = clientConfigs(parsePostgresAddress(address));
    expect(parametersOf(ours)).toEqual(parametersOf({ connectionString: address }));
  });

  it.each<[address: string, reason: string, environment?: Variables]>([
    ["mysql://u:s3cret@h/d", "must begin with postgresql:// or postgres://"],
    ["u:s3cret@h/d", "must begin with postgresql:// or postgres://"],
    ["host=h password=s3cret", "must begin with postgresql:// or postgres://"],
    ["postgresql://u:s3cret/x@h/d", "has a port that is not a whole number from 1 to 65535; percent-encode"],
    ["postgresql://u:123/s3cret@h/d", "has an @ after a / or ?; percent-encode special characters"],
    ["postgresql://u:123/s3cret?x@h/d", "has an @ after a / or ?; percent-encode special characters"],
    ["postgresql://u:123?s3cret/4@h/d", "has an @ after a / or ?; percent-encode special characters"],
    ["postgresql://u:s3cret@h:70000/d", "has a port that is not a whole number from 1 to 65535"],
    ["postgresql://[::1/d", "cannot be read as an address"],
    ["postgresql://[s3cret]x/d", "cannot be read as an address"],
    [
      "postgresql://a,b,c/s3cret?port=1,2",
      "names 3 hosts and 2 ports; give one port for all hosts, or one for each",
    ],
    ["postgresql://u:s3cret%00@h/d", "contains a zero byte (%00)"],
    ["postgresql://h/d?sslmode=on", "has sslmode=on; it must be one of disable, allow, prefer, require"],
    ["postgresql://h/d", "has PGSSLMODE=on; it must be one of", { PGSSLMODE: "on" }],
    [
      "postgresql://h/d?target_session_attrs=master",
      "has target_session_attrs=master; it must be one of any",
    ],
    [
      "postgresql://h/d?connect_timeout=s3cret",
      "has a connect_timeout that is not a whole number of seconds",
    ],
    ["postgresql://h/d?hostaddr=10.0.0.1", "has hostaddr, which is not supported: write the IP address"],
    ["postgresql://h/d?service=s", "has service, which is not supported: write the settings"],
    ["postgresql://h/d?passfile=/f", "has passfile, which is not supported: set PGPASSFILE instead"],
  ])("%s is refused everywhere: %s", (address, reason, environment = {}) => {
    Object.assign(process.env, environment);
    const reads = [
      () => parsePostgresAddress(address),
      () => defineQueue({ name: "q", dsn: address, tasks: {} }),
      () => parseSettings({ DATABASE_URL: address }),
      () => databaseAddress({ ...environment, DATABASE_URL: address }),
    ];
    for (const read of reads) {
      expect(read).toThrow(reason.startsWith("must begin") ? "must begin with postgresql://" : reason);
      expect(read).not.toThrow("s3cret");
    }
  });

  it("is named without its password", () => {
    const name = (address: string) => nameOfAddress(parsePostgresAddress(address, { USER: "os" }));
    expect(name("postgresql://u:p@a:1,[::1]/d?sslmode=require")).toBe("a:1,[::1]:5432/d");
    expect(name("postgresql://u:p@/?host=/socket")).toBe("/socket:5432/u");
  });
});

describe("start-up options", () => {
  const options = (address: string, noStartupOptions = false) =>
    clientConfig(address, { noStartupOptions }).candidates[0]?.options;

  it("from the address or PGOPTIONS are sent together with ours, without percent-encoding", () => {
    expect(options("postgresql://h/d")).toMatch(/^-c .*generic_plan/);
    expect(options("postgresql://u:100%@h/d?options=-c%20work_mem%3D8MB")).toMatch(
      / -c work_mem=8MB -c enable_seqscan=off .*generic_plan/,
    );
    process.env.PGOPTIONS = "-c geqo=off";
    expect(options("postgresql://h/d")).toMatch(/ -c geqo=off -c enable_seqscan=off /);
    // As in psql, the address takes precedence.
    expect(options("postgresql://h/d?options=-c%20a.b%3D1")).toMatch(/ -c a\.b=1 -c enable_seqscan=off /);
    expect(options("postgresql://h/d", true)).toBe("-c geqo=off");
    delete process.env.PGOPTIONS;
    expect(options("postgresql://h/d", true)).toBeUndefined();
  });

  it("other parameters of the address take precedence over our defaults", () => {
    expect(clientConfig("postgresql://h/d", { noStartupOptions: false })).toMatchObject({
      connectionTimeoutMillis: 5_000,
      query_timeout: 30_000,
      fallback_application_name: "saq",
    });
    const given = "postgresql://h/d?connect_timeout=2&query_timeout=7&application_name=mine";
    expect(clientConfig(given, { noStartupOptions: false })).toMatchObject({
      connectionTimeoutMillis: 2_000,
      query_timeout: 7,
      application_name: "mine",
    });
  });
});

describe("TLS", () => {
  const unchecked = { rejectUnauthorized: false };
  it.each<[parameters: string, ways: unknown[], environment?: Variables]>([
    ["", [false]],
    ["?sslmode=disable", [false]],
    ["?sslmode=disable", [false], { PGSSLMODE: "require" }],
    ["?sslmode=allow", [false, unchecked]],
    ["?sslmode=prefer", [unchecked, false]],
    ["?sslmode=require", [{}]],
    ["?sslmode=require&uselibpqcompat=true", [unchecked]],
    ["?sslmode=verify-ca", [{}]],
    ["?sslmode=verify-ca&uselibpqcompat=true", [{ checkServerIdentity: expect.any(Function) }]],
    ["?sslmode=verify-full&uselibpqcompat=true", [{}]],
    ["?sslmode=no-verify", [unchecked]],
    ["?ssl=true", [{}]],
    ["?ssl=1", [{}]],
    ["?ssl=0", [false]],
    ["?ssl=false", [false]],
    ["", [{}], { PGSSLMODE: "verify-full" }],
    ["?host=/socket", [false], { PGSSLMODE: "verify-full" }],
  ])("the parameters %j give the ssl settings %j", (parameters, ways, environment = {}) => {
    const address = parsePostgresAddress(`postgresql://h/d${parameters}`, environment);
    expect(clientConfigs(address).map(({ ssl }) => ssl)).toEqual(ways);
  });

  it("reads certificates from their files, and names the parameter of a file that it cannot read", () => {
    const folder = openFolder();
    writeFileSync(join(folder, "ca.pem"), "CA");
    const read = (query: string) =>
      clientConfigs(parsePostgresAddress(`postgresql://h/d?${query}`, {})).map(({ ssl }) => ssl);
    expect(read(`sslrootcert=${folder}/ca.pem`)).toEqual([{ ca: "CA" }]);
    expect(read(`sslmode=require&uselibpqcompat=true&sslrootcert=${folder}/ca.pem`)).toEqual([
      { ca: "CA", checkServerIdentity: expect.any(Function) },
    ]);
    expect(() => read("sslkey=/nowhere/key.pem")).toThrow(
      "names a file in sslkey that cannot be read (ENOENT); correct its path, or allow this process to read it",
    );
  });
});

describe("connections to a server", () => {
  const given = (text = process.env.TEST_DATABASE_URL ?? "") => parsePostgresAddress(text, {});

  it("pg and psql connect by an address whose password contains special characters", async () => {
    const [config = {}] = clientConfigs(given());
    const client = new pg.Client(config);
    await client.connect();
    const role = `address_${process.pid}`;
    const password = "a%b@c:d/e?f#g h'é%41";
    await client.query(`create role ${role} login password ${client.escapeLiteral(password)}`);
    try {
      const address = `postgresql://${role}:${encodeURIComponent(password)}@${config.host}:${config.port}/postgres?options=-c%20geqo%3Doff`;
      const asRole = new pg.Client(clientConfig(address, { noStartupOptions: false }));
      await asRole.connect();
      const { rows } = await asRole.query(
        "select current_user as role, current_setting('geqo') as geqo, current_setting('enable_seqscan') as seqscan",
      );
      await asRole.end();
      expect(rows).toEqual([{ role, geqo: "off", seqscan: "off" }]);
      const variables = libpqVariables(parsePostgresAddress(address));
      const psql = spawnSync("psql", ["-Atc", "select current_user, current_setting('geqo')"], {
        env: { ...process.env, ...variables },
        encoding: "utf8",
      });
      if (psql.error) process.stderr.write("psql is not installed: its part was not tried\n");
      else expect(psql.stdout).toBe(`${role}|off\n`);
    } finally {
      await client.query(`drop role ${role}`);
      await client.end();
    }
  });
});
