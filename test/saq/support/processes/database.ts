/** Creates a database for a test, with a table in which tasks record each run. */
import pg from "pg";

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
  url: string;
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

export async function newDatabase(name: string, server = testServerUrl()): Promise<TestDatabase> {
  const database = `${name}_${process.pid}_${Math.random().toString(36).slice(2, 8)}`;
  await asAdmin(server, `create database ${database}`);
  const url = Object.assign(new URL(server), { pathname: `/${database}` }).href;
  const pool = new pg.Pool({ connectionString: url, max: 2, ...observer });
  // Some tests kill the server. The next query replaces a broken idle connection.
  pool.on("error", () => {});
  const query: TestDatabase["query"] = async (text, values) => (await pool.query(text, values)).rows;
  await query(`create table runs (id serial primary key, job text not null, pid int not null,
    claimed bigint not null, started timestamptz not null, ended timestamptz, signal text)`);
  return {
    url,
    query,
    runs: (job) =>
      query<Run & pg.QueryResultRow>("select * from runs where $1::text is null or job = $1 order by id", [
        job ?? null,
      ]),
    document: async (key) => {
      const [row] = await query<{ status: string; job: Buffer }>(
        "select status, job from saq_jobs where key = $1",
        [key],
      );
      if (!row) throw new Error(`There is no job ${key}`);
      return { ...(JSON.parse(row.job.toString("utf8")) as object), status: row.status };
    },
    drop: async () => {
      await pool.end();
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
