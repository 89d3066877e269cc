/** Addresses with several servers, with a server without TLS, and with a socket, on real servers. */
import { chmodSync } from "node:fs";
import { afterAll, beforeAll, expect, it, jest } from "@jest/globals";
import { Queue } from "../../../templates/backend/saq/from-url.js";
import { silentLogger } from "../../../templates/backend/saq/logger.js";
import { Client } from "../../../templates/backend/saq/postgres/connection/client.js";
import { clientConfig } from "../../../templates/backend/saq/postgres/connection/client-settings.js";
import { DeadConnections } from "../../../templates/backend/saq/postgres/connection/dead-connections.js";
import { isConnectionError } from "../../../templates/backend/saq/postgres/connection/errors.js";
import { parsePostgresAddress } from "../../../templates/backend/saq/postgres-address.js";
import { startTemporaryPostgres } from "../../../templates/scripts/temporary-postgres.js";
import { openFolder } from "../../scripts/support/folders.js";
import { freePort } from "../../support/free-port.js";
import { closeAfterTest, useDatabase } from "../support/scenario.js";

jest.setTimeout(600_000);

const database = useDatabase();
const fast = { fsync: "off", synchronous_commit: "off" };
let folder: string;
let readOnly: Awaited<ReturnType<typeof startTemporaryPostgres>>;

beforeAll(async () => {
  folder = openFolder();
  chmodSync(folder, 0o777);
  readOnly = await startTemporaryPostgres({
    settings: { ...fast, default_transaction_read_only: "on", unix_socket_directories: folder },
  });
});
afterAll(() => readOnly.stop());

/** Address of the test's database, with other hosts before its own host. */
function behind(...others: string[]): string {
  const { username, password, host, pathname } = new URL(database.url);
  return `postgresql://${username}:${password}@${[...others, host].join(",")}${pathname}`;
}

const serverOf = async (address: string) => {
  const client = new Client(clientConfig(address, { noStartupOptions: false }));
  await client.connect();
  const { rows } = await client.query<{ port: number }>("show port");
  await client.end();
  return Number(rows[0]?.port);
};
const portOf = (address: string) => parsePostgresAddress(address).hosts.at(-1)?.port;

it("a queue connects to the first server that accepts writes", async () => {
  const { username, password } = new URL(readOnly.url);
  // The two servers have different passwords: the read-only one gets the password of the other one.
  const { username: user, password: secret } = new URL(database.url);
  const admin = new Client(clientConfig(readOnly.url, { noStartupOptions: false }));
  closeAfterTest({ close: () => admin.end() });
  await admin.connect();
  const { pathname } = new URL(database.url);
  await admin.query("set default_transaction_read_only = off");
  await admin.query(`alter role ${username} password '${secret}'`);
  await admin.query(`create database ${pathname.slice(1)}`);
  expect(user).toBe(username);
  const address = behind(`127.0.0.1:${await freePort()}`, new URL(readOnly.url).host);
  expect(await serverOf(address)).toBe(portOf(database.url));
  expect(await serverOf(`${address}?target_session_attrs=read-only`)).toBe(portOf(readOnly.url));
  expect(await serverOf(`${address}?target_session_attrs=any`)).toBe(portOf(readOnly.url));
  expect(await serverOf(`${address}?target_session_attrs=prefer-standby`)).toBe(portOf(readOnly.url));

  const queue = closeAfterTest(Queue.fromUrl(address, { name: "several" }));
  await queue.enqueue("any", {}, { key: "k" });
  expect(await database.query("select key from saq_jobs")).toEqual([{ key: "k" }]);

  await expect(serverOf(`${address}?target_session_attrs=standby`)).rejects.toThrow("is not standby");
  await admin.query(`alter role ${username} password '${decodeURIComponent(password)}'`);
  await admin.query(`drop database ${pathname.slice(1)}`);
});

it("the error names each server when none is reachable, and counts as a connection error", async () => {
  const [one, two] = [await freePort(), await freePort()];
  const attempt = serverOf(`postgresql://u:s3cret@127.0.0.1:${one},127.0.0.1:${two}/d`);
  const error: Error = await attempt.catch((reason) => reason);
  expect(error.message).toBe(`connect ECONNREFUSED 127.0.0.1:${one}; connect ECONNREFUSED 127.0.0.1:${two}`);
  expect(isConnectionError(error)).toBe(true);
});

it("sslmode=prefer and sslmode=allow accept a server without TLS, and sslmode=require refuses it", async () => {
  for (const mode of ["prefer", "allow"])
    expect(await serverOf(`${database.url}?sslmode=${mode}`)).toBe(portOf(database.url));
  await expect(serverOf(`${database.url}?sslmode=require`)).rejects.toThrow("does not support SSL");
});

it("a client connects to a server's Unix socket in both address forms that psql accepts", async () => {
  const { username, password } = new URL(readOnly.url);
  const port = portOf(readOnly.url);
  for (const address of [
    `postgresql://${username}:${password}@/postgres?host=${folder}&port=${port}`,
    `postgresql://${username}:${password}@${encodeURIComponent(folder)}:${port}/postgres`,
  ]) {
    expect(await serverOf(address)).toBe(port);
  }
});

it.each([
  ["", false],
  ["?target_session_attrs=primary", false],
  ["?target_session_attrs=any", true],
  ["?target_session_attrs=prefer-standby", true],
])("with several servers and query %j, no server can be asked about a session: %s", (query, cannotAsk) => {
  const of = (address: string) =>
    new DeadConnections({
      config: clientConfig(address, { noStartupOptions: false }),
      clients: new Set(),
      logger: silentLogger,
      onDead: () => {},
      signal: new AbortController().signal,
    }).cannotAsk;
  expect(of(`postgresql://one,two/d${query}`)).toBe(cannotAsk);
  expect(of(`postgresql://one/d${query}`)).toBe(false);
});
