/** The one LISTEN connection of a process, shared by queues that start, sweep and stop at the same moment. */
import { afterEach, expect, it, jest } from "@jest/globals";
import { defineQueue } from "../../../templates/backend/saq/config/index.js";
import { connectBrokers } from "../../../templates/backend/saq/connect.js";
import { silentLogger } from "../../../templates/backend/saq/logger.js";
import { watchOverlaps } from "../support/overlaps.js";
import { closeAfterTest, useDatabase } from "../support/scenario.js";

const database = useDatabase();
const limits = { graceSeconds: 5, lostLimit: 3, checkInterval: 2, failedTtl: 600 };

afterEach(() => {
  jest.restoreAllMocks();
});

it("P-22: five queues share one LISTEN connection and send their statements on it one at a time", async () => {
  const overlaps = watchOverlaps();
  const brokers = connectBrokers(
    [1, 2, 3, 4, 5].map((n) => defineQueue({ name: `queue${n}`, dsn: database.url, tasks: {} })),
    silentLogger,
  ).map(closeAfterTest);
  const ends = await Promise.all(
    brokers.map(async (broker) => {
      await broker.connect();
      const ends = [await broker.holdLiveness(broker.newWorkerId()), await broker.subscribe(() => {})];
      await broker.sweepStuck(limits);
      return ends;
    }),
  );
  const listeners = await database.query(
    `select pid from pg_locks where locktype = 'advisory' and classid = 21314 and granted
       and database = (select oid from pg_database where datname = current_database())
     group by pid having count(*) = 5`,
  );
  expect(listeners).toHaveLength(1);
  await Promise.all(ends.flat().map((end) => end()));
  expect(overlaps).toEqual([]);
});
