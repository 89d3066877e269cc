/** How soon a connection on which no answer will come is found, beside others that wait for slow statements. */
import { expect, it } from "@jest/globals";
import type pg from "pg";
import { silentLogger } from "../../../templates/backend/saq/logger.js";
import { Client } from "../../../templates/backend/saq/postgres/connection/client.js";
import { clientConfig } from "../../../templates/backend/saq/postgres/connection/client-settings.js";
import { DeadConnections } from "../../../templates/backend/saq/postgres/connection/dead-connections.js";
import { closeAfterTest, until, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

it("a dead connection is found within 10 s although another connection runs a slow statement", async () => {
  const config = clientConfig(database.url, { noStartupOptions: false });
  const slow = new Client(config);
  await slow.connect();
  void slow.query("select pg_sleep(24)").catch(() => {});
  closeAfterTest({ close: () => slow.end() });
  const clients = new Set([slow as unknown as pg.PoolClient]);
  const closing = new AbortController();
  const found: number[] = [];
  const dead = new DeadConnections({
    config,
    clients,
    logger: silentLogger,
    onDead: () => found.push(performance.now()),
    signal: closing.signal,
  });
  dead.start();
  // The server says each time that it works on the statement, so the pause before the next look grows to 16 s.
  for (let look = 0; look < 4; look++) {
    dead.suspectAll();
    await pause(1_500);
  }
  expect(found).toEqual([]);
  // No session of the server has this number: its own is gone, and nothing says so on the socket.
  const stream = { bytesRead: 0, destroy: () => clients.delete(silent) };
  const silent = { processID: 2 ** 30, _activeQuery: {}, connection: { stream } } as unknown as pg.PoolClient;
  clients.add(silent);
  const began = performance.now();
  await until(async () => found.length > 0);
  expect(performance.now() - began).toBeLessThan(10_000);
  expect([...clients]).toEqual([slow]);
  closing.abort();
  dead.stop();
}, 120_000);
