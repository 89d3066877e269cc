/**
 * Claims whose response never came or came late, and settlements that could not be recorded: a job that the database
 * assigns to this worker is returned to the queue if the worker does not hold it.
 */
import { afterEach, beforeAll, describe, expect, it, jest } from "@jest/globals";
import pg from "pg";
import type { Queue } from "../../../templates/backend/saq/queue/queue.js";
import { openProxy, type TestProxy } from "../support/cuttable-proxy.js";
import {
  claim,
  holdsNothing,
  insertRow,
  openQueue,
  rowOf,
  settle,
  settlement,
  startWorker,
  until,
  useDatabase,
} from "../support/scenario.js";
import { stepClock } from "../support/stepped-clock.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };
type Hello = Queue<typeof tasks>;
const open = (from: { url: string } = database): Hello => openQueue(from, tasks);
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

beforeAll(async () => {
  const queue = open();
  await queue.connect();
  await queue.close();
});
afterEach(() => {
  jest.restoreAllMocks();
});

const statusOf = async (key: string) => (await rowOf(database, key))?.status;

const activeOf = (queue: Hello) =>
  database.query<{ key: string }>("select key from saq_jobs where queue = $1 and status = 'active'", [
    queue.name,
  ]);

/** Reconciles like a worker that holds no claim, until `isSo` returns true. Returns the keys of the returned jobs. */
async function reconcileUntil(queue: Hello, isSo: () => Promise<boolean>): Promise<string[]> {
  const keys: string[] = [];
  await until(async () => {
    const back = await queue.broker.reconcile(holdsNothing).catch(() => []);
    keys.push(...back);
    return isSo();
  });
  return keys;
}

/** Enqueues jobs and claims them, and the proxy swallows the response. Returns their keys. */
async function cutClaim(queue: Hello, proxy: TestProxy, count = 1): Promise<string[]> {
  const jobs = await queue.enqueueMany(
    Array.from({ length: count }, (_, n) => ({ task: "hello" as const, payload: { n } })),
  );
  const keys = jobs.map((job) => job?.key ?? "");
  const swallowed = proxy.mute();
  const claimed = claim(queue);
  const failed = expect(claimed).rejects.toThrow();
  await swallowed;
  await until(async () => (await statusOf(keys[0] ?? "")) === "active");
  proxy.refuse();
  await failed;
  return keys;
}

describe("a claim whose response was lost", () => {
  it("its job returns to the queue after an outage of any length, and no attempt is counted", async () => {
    const clock = stepClock();
    const proxy = await openProxy(database);
    const queue = open(proxy);
    const [key = ""] = await cutClaim(queue, proxy);
    // Moves both clocks of this process by eight minutes.
    clock.pass(480);
    clock.set(480);
    expect(await statusOf(key)).toBe("active");
    proxy.admit();
    expect(await reconcileUntil(queue, async () => (await statusOf(key)) === "queued")).toEqual([key]);
    expect(JSON.parse((await rowOf(database, key))?.text ?? "")).not.toHaveProperty("attempts");
  }, 600_000);

  it("a job that another transaction holds does not delay the others, and returns to the queue later", async () => {
    const proxy = await openProxy(database);
    const queue = open(proxy);
    const keys = (await cutClaim(queue, proxy, 5)).toSorted();
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where key = $1 for update", [keys[0]]);
    proxy.admit();
    await reconcileUntil(queue, async () => (await activeOf(queue)).length === 1);
    expect(await activeOf(queue)).toEqual([{ key: keys[0] }]);
    await other.query("rollback");
    await reconcileUntil(queue, async () => (await statusOf(keys[0] ?? "")) === "queued");
  }, 600_000);

  it("V-5.11: its job ends as aborted if an abort was requested in the meantime", async () => {
    const proxy = await openProxy(database);
    const queue = open(proxy);
    const [key = ""] = await cutClaim(queue, proxy);
    await database.query("update saq_jobs set status = 'aborting' where key = $1", [key]);
    proxy.admit();
    await reconcileUntil(queue, async () => (await statusOf(key)) === "aborted");
  }, 600_000);

  it("its job is found even if the server runs the claim minutes after the connection was cut", async () => {
    const clock = stepClock();
    const proxy = await openProxy(database);
    const queue = open(proxy);
    const { key } = await queue.enqueue("hello");
    const other = await database.connect();
    await other.query("begin; lock table saq_jobs in exclusive mode");
    const failed = expect(claim(queue)).rejects.toThrow();
    await until(async () => {
      const waiting = "wait_event_type = 'Lock' and datname = current_database()";
      return (await database.query(`select 1 from pg_stat_activity where ${waiting}`)).length === 1;
    });
    proxy.cut();
    await failed;
    clock.pass(600);
    expect(await reconcileUntil(queue, async () => true)).toEqual([]);
    clock.pass(600);
    await other.query("commit");
    await until(async () => (await statusOf(key)) === "active");
    await reconcileUntil(queue, async () => {
      clock.pass(60);
      return (await statusOf(key)) === "queued";
    });
  }, 600_000);

  it("reconciling changes neither the jobs that the worker holds nor those of a claim in progress", async () => {
    const queue = open();
    await queue.enqueueMany([{ task: "hello" }, { task: "hello" }, { task: "hello" }]);
    const held = await claim(queue, { limit: 2 });
    const other = await database.connect();
    await other.query("begin; lock table saq_jobs in exclusive mode");
    const underWay = claim(queue, { limit: 1 });
    const rounds = async (count: number) => {
      const keys: string[] = [];
      for (let round = 0; round < count; round++)
        keys.push(...(await queue.broker.reconcile({ ...holdsNothing, held: () => held })));
      return keys;
    };
    expect(await rounds(3)).toEqual([]);
    await other.query("commit");
    const [last] = await underWay;
    expect(last).toBeDefined();
    // The claim has returned, but its job is not among the held ones.
    expect(await rounds(3)).toEqual([last?.key]);
    expect(await activeOf(queue)).toHaveLength(2);
  });

  it("reconciling does not change the jobs of a claim while some of their documents are read one by one", async () => {
    const queue = open();
    const { key } = await queue.enqueue("hello");
    const members = { function: "hello", queue: queue.name, key: "odd" };
    const document = JSON.stringify(members).replace("}", ', "kwargs": {"a": NaN}}');
    await insertRow(database, { key: "odd", queue: queue.name, document });
    // Blocks the second write of the odd job. SQL cannot read its document, but the claimer can.
    await database.query(`
      create function hold() returns trigger language plpgsql as
        $$ begin perform pg_advisory_xact_lock(4711); return new; end $$;
      create trigger hold before update on saq_jobs for each row
        when (old.status = 'active' and new.key = 'odd') execute function hold()`);
    const other = await database.connect();
    await other.query("select pg_advisory_lock(4711)");
    const underWay = claim(queue);
    await until(async () => {
      const waiting = "wait_event = 'advisory' and datname = current_database()";
      return (await database.query(`select 1 from pg_stat_activity where ${waiting}`)).length === 1;
    });
    for (let round = 0; round < 2; round++) expect(await queue.broker.reconcile(holdsNothing)).toEqual([]);
    await other.query("select pg_advisory_unlock(4711)");
    expect((await underWay).map((job) => job.key).toSorted()).toEqual([key, "odd"].toSorted());
    expect(await activeOf(queue)).toHaveLength(2);
    await database.query("drop trigger hold on saq_jobs; drop function hold");
  });

  it("reconciling sends no statement if the worker has nothing to compare", async () => {
    const queue = open();
    await claim(queue);
    const { key } = await queue.enqueue("hello");
    const [claimed] = await claim(queue);
    if (!claimed) throw new Error("the job was not claimed");
    await settle(queue, settlement(claimed, "complete"));
    expect(await queue.broker.reconcile(holdsNothing)).toEqual([]);
    const statements = jest.spyOn(pg.Client.prototype, "query");
    expect(await queue.broker.reconcile(holdsNothing)).toEqual([]);
    expect(statements).not.toHaveBeenCalled();
    expect(await statusOf(key)).toBe("complete");
  });
});

describe("a settlement that cannot be recorded", () => {
  it("its job runs again and is counted as lost, although its worker is alive", async () => {
    await database.query(`
      create function refuse_end() returns trigger language plpgsql as $$
      begin raise exception 'not now' using errcode = '23514'; end $$;
      create trigger refuse_end before update of status on saq_jobs for each row
        when (old.status = 'active' and new.status = 'complete') execute function refuse_end();`);
    const drop = "drop trigger if exists refuse_end on saq_jobs; drop function if exists refuse_end";
    try {
      const queue = open();
      const { key } = await queue.enqueue("hello", {}, { timeout: 0 });
      const { log, ended } = await startWorker(queue);
      await log.saw(({ message }) => message === "could not record how a job ended");
      await database.query(drop);
      expect(await ended(key)).toBe("Finished hello");
      expect(await queue.job(key)).toMatchObject({ status: "complete", attempts: 1, meta: { lost: 1 } });
    } finally {
      await database.query(drop);
    }
  }, 600_000);
});

/** A claimed job, and the job as it was stored by the claim. */
async function claimedJob() {
  const queue = open();
  const { key } = await queue.enqueue("hello");
  const [claimed] = await claim(queue);
  if (!claimed) throw new Error("the job was not claimed");
  return { queue, key, claimed, before: await queue.job(key) };
}

/** Each claimed row takes 0.7 s, until the function and its trigger are dropped. */
const slowDownClaims = () =>
  database.query(`
    create function slow_claim() returns trigger language plpgsql as
      $$ begin perform pg_sleep(0.7); return new; end $$;
    create trigger slow_claim before update of status on saq_jobs for each row
      when (old.status = 'queued' and new.status = 'active') execute function slow_claim();`);

describe("a claim whose response is read late", () => {
  it("its worker runs the jobs that it still owns, and skips those that another process took over", async () => {
    const clock = stepClock();
    const runs: string[] = [];
    const count = (ctx: { job: { key: string } }) => {
      runs.push(ctx.job.key);
    };
    const queue = openQueue(database, { count });
    const [taken, left] = [await queue.enqueue("count"), await queue.enqueue("count")];
    const claim = queue.broker.claim.bind(queue.broker);
    queue.broker.claim = async (request) => {
      const answer = await claim(request);
      queue.broker.claim = claim;
      // While this process was paused, another process has taken over the first job and finished it.
      clock.pass(7);
      await database.query(
        "update saq_jobs set status = 'complete', lock_key = lock_key + 1, expire_at = 1e10 where key = $1",
        [taken.key],
      );
      return answer;
    };
    const claims = jest.spyOn(queue.broker, "renew");
    const { ended } = await startWorker(queue);
    expect(await ended(left.key)).toBe("Finished count");
    expect(claims).toHaveBeenCalledTimes(1);
    expect(runs).toEqual([left.key]);
    expect(await queue.job(left.key)).toMatchObject({ attempts: 1, status: "complete" });
  }, 600_000);

  it("renewing a claimed job moves its start time forward, so that its timeout starts again", async () => {
    const { queue, key, claimed, before } = await claimedJob();
    await database.query("select pg_sleep(0.05)");
    const [renewed] = await queue.broker.renew([claimed]);
    const after = await queue.job(key);
    expect(after?.started).toBeGreaterThan(before?.started ?? 0);
    expect(JSON.parse(renewed?.document ?? "")).toMatchObject({ started: after?.started, attempts: 1 });
    expect(await settle(queue, settlement(claimed, "complete"))).toBe("applied");
    expect(await queue.broker.renew([claimed])).toEqual([]);
  });

  it("renewing never moves a job's start time back, even if our estimate of the database clock is behind", async () => {
    const { queue, key, claimed, before } = await claimedJob();
    stepClock().pass(-5);
    expect(await queue.broker.renew([claimed])).toHaveLength(1);
    expect((await queue.job(key))?.started).toBe(before?.started);
  });

  it("the claim after a slow one asks for fewer jobs, so that jobs do not return to the queue forever", async () => {
    await slowDownClaims();
    try {
      const queue = open();
      const jobs = await queue.enqueueMany(
        Array.from({ length: 12 }, () => ({ task: "hello" as const, payload: {} })),
      );
      const asked: number[] = [];
      const claim = queue.broker.claim.bind(queue.broker);
      queue.broker.claim = (request) => {
        asked.push(request.limit);
        return claim(request);
      };
      const { ended } = await startWorker(queue);
      for (const job of jobs) await ended(job?.key ?? "");
      // The first claim took 7 s.
      expect(asked.slice(0, 2)).toEqual([10, 5]);
      const runs = jobs.map(async (job) => (await queue.job(job?.key ?? ""))?.attempts);
      expect(await Promise.all(runs)).toEqual(jobs.map(() => 1));
    } finally {
      await database.query("drop trigger slow_claim on saq_jobs; drop function slow_claim");
    }
  }, 600_000);

  it("claims that the server cancels become smaller until one succeeds", async () => {
    await slowDownClaims();
    try {
      // A claim of ten would take 7 s, which is longer than the statement timeout of 4 s.
      const queue = open({ url: `${database.url}?options=-c%20statement_timeout%3D4000` });
      const jobs = await queue.enqueueMany(
        Array.from({ length: 12 }, () => ({ task: "hello" as const, payload: {} })),
      );
      const limits: { cancelled: number[]; successful: number[] } = { cancelled: [], successful: [] };
      const claim = queue.broker.claim.bind(queue.broker);
      queue.broker.claim = async (request) => {
        try {
          const response = await claim(request);
          limits.successful.push(request.limit);
          return response;
        } catch (error) {
          expect(error).toMatchObject({ code: "57014" });
          if (limits.successful.length === 0) limits.cancelled.push(request.limit);
          throw error;
        }
      };
      const { ended } = await startWorker(queue);
      await until(async () => limits.successful.length > 0);
      const [first, ...smaller] = [...limits.cancelled, ...limits.successful.slice(0, 1)];
      expect(first).toBe(10);
      expect(smaller.length).toBeGreaterThan(0);
      for (const [index, limit] of smaller.entries())
        expect(limit).toBeLessThan(limits.cancelled[index] ?? 0);
      for (const job of jobs) await ended(job?.key ?? "");
    } finally {
      await database.query("drop trigger slow_claim on saq_jobs; drop function slow_claim");
    }
  }, 600_000);

  it("one claim returns at most 16 MB of documents, and the next claim returns the rest", async () => {
    const queue = open();
    const text = "x".repeat(4 * 1024 * 1024);
    for (let n = 0; n < 6; n++) await queue.enqueue("hello", { text });
    await queue.connect();
    const request = { workerId: "worker-1", limit: 100, priorities: queue.config.priorities, grouped: false };
    const first = await queue.broker.claim(request);
    expect([first.jobs.length, first.more]).toEqual([3, true]);
    const second = await queue.broker.claim(request);
    expect(second.jobs).toHaveLength(3);
  }, 600_000);
});

describe("an unreachable database", () => {
  it("gets at most 30 connection attempts in 5 s from one idle worker", async () => {
    const proxy = await openProxy(database);
    const queue = open(proxy);
    await startWorker(queue);
    // After these 8 s the pauses between retries have grown.
    proxy.refuse();
    await pause(8_000);
    const before = proxy.tries;
    await pause(5_000);
    const tries = proxy.tries - before;
    proxy.admit();
    expect(tries).toBeGreaterThan(0);
    expect(tries).toBeLessThanOrEqual(30);
  }, 600_000);
});
