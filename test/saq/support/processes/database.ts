/**
 * Creates a database for a test, with a table in which tasks record each run. This table is always in PostgreSQL, also if
 * the queue is on Redis: an application's own data are there.
 */
import pg from "pg";
import type { RedisDatabase } from "../../../support/redis.js";
import { postgresState } from "../postgres-state.js";
import { openRedisPlace, placeIn } from "../redis-place.js";
import type { StoredState } from "../stored-state.js";
import { onPoll, onRedis } from "../test-broker.js";

/** One run of one task. `ended` is null until the run is over. */
export interface Run {
  job: string;
  pid: number;
  /** Time of the claim for this run, epoch ms by the database's clock. */
  claimed: string;
  started: Date;
  ended: Date | null;
  /** Name of the reason with which the task's signal fired; null if it did not fire. */
  signal: string | null;
}

export interface TestDatabase {
  /** Address of the queue. */
  url: string;
  /** What a worker process needs: the addresses of the queue and of the recorded runs, and the mode of the broker. */
  worker: { url: string; runsUrl: string; pollInterval?: number };
  /** What is stored of the queue. */
  stored: StoredState;
  /** Sends a statement to the database of the recorded runs. On PostgreSQL, the queue is in it too. */
  query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]>;
  runs(job?: string): Promise<Run[]>;
  /** The wire document of a job, with the status of its row. */
  document(key: string): Promise<StoredDocument>;
  drop(): Promise<void>;
}

export interface StoredDocument {
  status: string;
  attempts?: number;
  error?: string;
  result?: unknown;
  meta?: Record<string, unknown>;
}

export function testServerUrl(): string {
  const url = process.env.TEST_DATABASE_URL;
  if (!url) throw new Error("test/global-setup.ts must set TEST_DATABASE_URL before the tests.");
  return url;
}

/** This name distinguishes the connections of the tests from those of the engine. */
const observer = { application_name: "observer" };

/**
 * `server`: a PostgreSQL server for the recorded runs, and for the queue unless it is on Redis. `givenRedis`: a
 * database of a Redis server of the test's own, for the queue.
 */
export async function newDatabase(
  name: string,
  server = testServerUrl(),
  givenRedis?: Pick<RedisDatabase, "url" | "client" | "release">,
): Promise<TestDatabase> {
  const redis = givenRedis ? placeIn(givenRedis) : onRedis ? await openRedisPlace() : null;
  const database = `${name}_${process.pid}_${Math.random().toString(36).slice(2, 8)}`;
  await asAdmin(server, `create database ${database}`);
  const runsUrl = Object.assign(new URL(server), { pathname: `/${database}` }).href;
  const url = redis?.url ?? runsUrl;
  const pool = new pg.Pool({ connectionString: runsUrl, max: 2, ...observer });
  // Some tests kill the server. The next query replaces a broken idle connection.
  pool.on("error", () => {});
  const query: TestDatabase["query"] = async (text, values) => (await pool.query(text, values)).rows;
  await query(`create table runs (id serial primary key, job text not null, pid int not null,
    claimed bigint not null, started timestamptz not null, ended timestamptz, signal text)`);
  const stored = redis?.stored(new Set(["default"])) ?? postgresState(query);
  return {
    url,
    worker: { url, runsUrl, ...(onPoll ? { pollInterval: 0.1 } : {}) },
    stored,
    query,
    runs: (job) =>
      query<Run & pg.QueryResultRow>("select * from runs where $1::text is null or job = $1 order by id", [
        job ?? null,
      ]),
    document: async (key) => {
      const row = await stored.row(key);
      if (!row) throw new Error(`There is no job ${key}`);
      return { ...(JSON.parse(row.text) as object), status: row.status };
    },
    drop: async () => {
      await pool.end();
      await redis?.release();
      await asAdmin(server, `drop database ${database} with (force)`);
    },
  };
}

async function asAdmin(server: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: server, ...observer });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}
