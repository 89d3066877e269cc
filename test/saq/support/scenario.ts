/**
 * What the engine's tests share: a database per test file, and queues and workers that are closed after each test. A
 * test fails if it leaves a connection or a timer behind that outlives its queue. The database is on the broker of this
 * run (test-broker.ts).
 */

import { randomBytes } from "node:crypto";
import { afterAll, afterEach, beforeAll, beforeEach, jest } from "@jest/globals";
import pg from "pg";
import type {
  Broker,
  Reconciliation,
  Settlement,
  SettleResult,
} from "../../../templates/backend/saq/broker.js";
import {
  defineQueue,
  type QueueConfig,
  type QueueSettings,
} from "../../../templates/backend/saq/config/index.js";
import { connectBrokers } from "../../../templates/backend/saq/connect.js";
import type { ClaimedJob } from "../../../templates/backend/saq/core/claim.js";
import type { JobFields } from "../../../templates/backend/saq/core/job.js";
import { encodeChange } from "../../../templates/backend/saq/core/wire.js";
import { type Logger, silentLogger } from "../../../templates/backend/saq/logger.js";
import { receiptOf } from "../../../templates/backend/saq/postgres/receipt.js";
import { Queue } from "../../../templates/backend/saq/queue/queue.js";
import type { HookOptions, OneOrMany } from "../../../templates/backend/saq/tasks/hooks.js";
import type { TaskMap } from "../../../templates/backend/saq/tasks/task.js";
import { Worker, type WorkerOptions } from "../../../templates/backend/saq/worker/index.js";
import type { RedisClient } from "../../support/redis.js";
import { LogBook, type LogLine } from "./log-book.js";
import { postgresState, type Query } from "./postgres-state.js";
import { openRedisPlace, type RedisPlace } from "./redis-place.js";
import type { JobRow, NewRow, RowEdit, StoredState, StoredWorker } from "./stored-state.js";
import { onPoll, onRedis } from "./test-broker.js";

export type { JobRow } from "./stored-state.js";

const serverUrl = (): URL => {
  const url = process.env.TEST_DATABASE_URL;
  if (!url) throw new Error("TEST_DATABASE_URL is not set; run the tests with `npm test`");
  return new URL(url);
};

export interface TestDatabase {
  readonly url: string;
  /** Sends a statement. Only on PostgreSQL. */
  query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]>;
  /** Opens a connection for the test, for instance to hold a lock. It is closed after the test. Only on PostgreSQL. */
  connect(user?: string): Promise<pg.Client>;
  /** The test's own connection. Only on Redis. */
  redis(): RedisClient;
  /** Reads and changes what is stored, on every broker. */
  readonly stored: StoredState;
}

type Opened = { close(): Promise<unknown> };
const opened: Opened[] = [];

/** Closes `thing` after the test. Several are closed in the reverse order of their opening. */
export function closeAfterTest<Thing extends Opened>(thing: Thing): Thing {
  opened.push(thing);
  return thing;
}

export async function closeAll(): Promise<void> {
  while (opened.length > 0) await opened.pop()?.close();
}

/**
 * Creates a database for this test file. On PostgreSQL, it is dropped at the end of the file, or kept if a test failed
 * and the server outlives the run. On Redis, its keys are deleted at the end of the file.
 */
export function useDatabase(): TestDatabase {
  const database = onRedis ? redisDatabase() : postgresDatabase();
  let timers = 0;
  beforeEach(() => {
    timers = countTimers();
  });
  afterEach(async () => {
    // A test may have replaced the timers that the clients of both servers need.
    jest.useRealTimers();
    await closeAll();
    await settles("connection", () => database.stored.connections());
    await settles("timer", async () => Array.from({ length: countTimers() - timers }, () => "Timeout"));
  });
  return database;
}

function postgresDatabase(): TestDatabase {
  const name = `saq_test_${randomBytes(6).toString("hex")}`;
  let client: pg.Client | undefined;
  const urlOf = (user?: string) => {
    const url = serverUrl();
    url.pathname = `/${name}`;
    if (user) url.username = user;
    return url.href;
  };
  const query: Query = async (text, values = []) => {
    if (!client) throw new Error("the test's database is not open yet");
    return (await client.query(text, values)).rows;
  };

  beforeAll(async () => {
    await asAdmin(`create database ${name}`);
    client = new pg.Client({ connectionString: urlOf(), application_name: "test" });
    await client.connect();
  });
  afterAll(async () => {
    await client?.end();
    if (aTestFailed() && !process.env.TEST_DATABASE_ENDS)
      process.stderr.write(`A test failed; its database is kept: ${urlOf()}\n`);
    else await asAdmin(`drop database ${name} with (force)`);
  });

  return {
    get url() {
      return urlOf();
    },
    query,
    connect: async (user) => {
      const own = new pg.Client({ connectionString: urlOf(user), application_name: "test" });
      await own.connect();
      closeAfterTest({ close: () => own.end() });
      return own;
    },
    redis: () => {
      throw new Error("this test reads Redis, but runs on PostgreSQL");
    },
    stored: postgresState(query),
  };
}

function redisDatabase(): TestDatabase {
  let opened: RedisPlace | undefined;
  const place = () => {
    if (!opened) throw new Error("the test's database is not open yet");
    return opened;
  };
  let stored: StoredState | undefined;
  beforeAll(async () => {
    opened = await openRedisPlace();
  });
  afterAll(() => opened?.release());
  const noSql = async () => {
    throw new Error("this test sends SQL, but runs on Redis");
  };
  return {
    get url() {
      return place().url;
    },
    query: noSql,
    connect: noSql,
    redis: () => place().client(),
    get stored() {
      stored ??= place().stored(queueNames);
      return stored;
    },
  };
}

/** Number of timers that keep the process alive. Jest's own timers are there before and after a test. */
const countTimers = (): number =>
  process.getActiveResourcesInfo().filter((kind) => kind === "Timeout").length;

/**
 * Waits until nothing is left. A backend ends a moment after its connection was closed, so the check is repeated. Only
 * a real leftover takes the whole time.
 */
async function settles(kind: string, look: () => Promise<string[]>): Promise<void> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const left = await look();
    if (left.length === 0) return;
    if (Date.now() > deadline) {
      throw new Error(`The test left ${left.length} ${kind}(s) behind: ${left.join(" | ")}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/**
 * Waits for a state that only the database can show: calls `isSo` every 10 ms until it returns true. Fails after 110 s,
 * which is long enough for a busy machine.
 */
export async function until(isSo: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 110_000;
  while (!(await isSo())) {
    if (Date.now() > deadline) throw new Error(`still not so after 110 s: ${isSo}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function asAdmin(statement: string): Promise<void> {
  const admin = new pg.Client({ connectionString: serverUrl().href });
  await admin.connect();
  try {
    await admin.query(statement);
  } finally {
    await admin.end();
  }
}

interface TestNode {
  errors?: unknown[];
  children?: TestNode[];
}

/** Jest does not tell hooks how the tests ended. Its runner keeps the results in a global with a private symbol. */
function aTestFailed(): boolean {
  const symbol = Object.getOwnPropertySymbols(globalThis).find(
    (own) => own.description === "JEST_STATE_SYMBOL",
  );
  const state = symbol && (globalThis as unknown as Record<symbol, { rootDescribeBlock: TestNode }>)[symbol];
  const failed = (node: TestNode): boolean =>
    (node.errors?.length ?? 0) > 0 || (node.children ?? []).some(failed);
  return state ? failed(state.rootDescribeBlock) : false;
}

/** What every queue of this run is configured with, unless the test says otherwise. */
export const pollInterval = onPoll ? { pollInterval: 0.1 } : {};

type TestHooks = Partial<Record<keyof HookOptions, OneOrMany<(ctx: never, next: never) => unknown>>>;

let queues = 0;
const queueNames = new Set<string>();

/** Channels of Redis are common to all its databases: on Redis, no other test file may use the same names. */
const prefix = onRedis ? `${randomBytes(3).toString("hex")}-` : "";

/** Opens a queue with a new name, so that the tests of a file do not interfere. It is closed after the test. */
export function openQueue<const Tasks extends TaskMap>(
  database: { url: string },
  tasks: Tasks,
  {
    logger = silentLogger,
    ...options
  }: Partial<QueueSettings<string, Tasks>> & TestHooks & { logger?: Logger } = {},
): Queue<Tasks> {
  // test/saq/types checks whether the hooks return what the tasks need.
  const define = defineQueue as unknown as (options: object) => QueueConfig<string, Tasks>;
  // On a loaded machine the event loop is blocked for other reasons than a task: no test counts that warning by chance.
  const defaults = {
    name: `${prefix}queue${++queues}`,
    dsn: database.url,
    eventLoopDelay: 0,
    ...pollInterval,
  };
  const config = define({ ...defaults, tasks, ...options });
  queueNames.add(config.name);
  const [broker] = connectBrokers([config], logger);
  if (!broker) throw new Error("no broker");
  return closeAfterTest(new Queue<Tasks>(config, broker, { logger }));
}

/** What a worker logs once the end of an attempt is recorded. */
const endings = /^(Finished|Failed|Aborted|Retrying|Requeued|Snoozed) |^lost the job/;

export interface TestWorker {
  readonly worker: Worker;
  readonly log: LogBook;
  /** Waits until the job's `nth` attempt (from 1) is over and its end is recorded. Returns the worker's log message. */
  ended(key: string, nth?: number): Promise<string>;
}

/** Starts a worker in this process. It is stopped after the test. */
export async function startWorker<Tasks extends TaskMap>(
  queue: Queue<Tasks>,
  options: WorkerOptions = {},
): Promise<TestWorker> {
  const log = new LogBook();
  const worker = new Worker(queue as unknown as Queue, { logger: log, ...options });
  closeAfterTest({ close: () => worker.stop({ grace: 0 }) });
  await worker.start();
  return {
    worker,
    log,
    ended: async (key, nth = 1) => {
      let seen = 0;
      const counted = new Set<LogLine>();
      const line = await log.saw((candidate) => {
        if (candidate.fields.job !== key || !endings.test(candidate.message) || counted.has(candidate))
          return false;
        counted.add(candidate);
        return ++seen >= nth;
      });
      return line.message;
    },
  };
}

export const rowOf = ({ stored }: TestDatabase, key: string): Promise<JobRow | undefined> => stored.row(key);

/** Inserts a row as another program would. */
export async function insertRow({ stored }: TestDatabase, row: NewRow): Promise<void> {
  queueNames.add(row.queue);
  await stored.insert(row);
}

/** Changes a row as another program would that tells nobody. */
export const editRow = ({ stored }: TestDatabase, key: string, edit: RowEdit): Promise<void> =>
  stored.edit(key, edit);

export const deleteRow = ({ stored }: TestDatabase, key: string): Promise<void> => stored.remove(key);

/** Returns what is stored about a worker; undefined if nothing is. */
export const workerRow = (
  { stored }: TestDatabase,
  { name }: { name: string },
  workerId: string,
): Promise<StoredWorker | undefined> => stored.worker(name, workerId);

/** The clock of the server, whole epoch s. */
export const serverSeconds = async ({ stored }: TestDatabase): Promise<number> =>
  Math.floor(await stored.now());

/** Returns the document of a job that PostgreSQL claimed as it is stored now, from the response of the claim. */
export function claimedText(job: ClaimedJob): string {
  const { suffix } = receiptOf(job);
  if (!suffix) return job.document;
  return job.document.slice(0, -',"status":"queued"}'.length) + suffix.kept + suffix.replaced;
}

/** Claims as a worker does. Returns each job with its document as it is stored now. */
export async function claim<Tasks extends TaskMap>(
  queue: Queue<Tasks>,
  { limit = 10, grouped = false, workerId = "worker-1", priorities = queue.config.priorities } = {},
): Promise<ClaimedJob[]> {
  await queue.connect();
  const { jobs } = await queue.broker.claim({ workerId, limit, grouped, priorities });
  if (!onRedis) return jobs.map((job) => ({ ...job, document: claimedText(job) }));
  const stored = await queue.broker.jobs(jobs.map(({ key }) => key));
  return jobs.map((job, index) => ({ ...job, document: stored[index]?.document ?? job.document }));
}

/** What `reconcile` gets from a worker that holds no claim. */
export const holdsNothing: Reconciliation = {
  workerId: "worker-1",
  held: () => [],
  unrecorded: () => [],
  forgetUnrecorded: () => {},
  lostLimit: 3,
  failedTtl: 600,
};

/** Settles a job as a worker does. */
export const settle = (
  { broker }: { broker: Pick<Broker, "settle"> },
  ended: Settlement,
): Promise<SettleResult> => new Promise((resolve, reject) => broker.settle(ended, { resolve, reject }));

/** The settlement of a claimed job, as a worker writes it. */
export function settlement(
  { key, receipt, due }: ClaimedJob,
  status: Settlement["status"],
  fields: Partial<JobFields> = {},
  rest: Partial<Settlement> = {},
): Settlement {
  return {
    key,
    receipt,
    status,
    ...encodeChange({ ...fields, status }),
    charge: 0,
    keep: status === "queued" ? null : 600,
    scheduled: due,
    awaited: false,
    result: null,
    unchanged: false,
    ...rest,
  };
}
