/**
 * The upper limit: the minimum of code that stores the same rows as the engine. Like the engine, it has the same
 * tables, indexes and kind of keys, and changes a document by replacing its end, byte for byte. It commits as durably
 * as the engine (enqueue, claim and completion each wait for the disk), and sends one NOTIFY per statement that stores
 * jobs. It has no other feature: no options, retries of jobs, timeouts, groups, aborts, sweeps, logs or reconnects.
 * Every job that it claims is as an enqueue has stored it. The difference between its rate and the engine's is the
 * price of the engine's features.
 *
 * Reviewed:
 *
 * - Durability: neither this contestant nor the engine sets synchronous_commit on a connection, and the server runs
 *   with fsync.
 * - Documents and columns: the benchmark compares the columns of a finished job, and the members of its document in
 *   order, with those of the engine.
 * - Tokens: each claim has a random token.
 * - Fence: a completion changes only an active row that has the claim's token, and whose document still has the end
 *   that the claim has written, which contains the worker's name and the time. If all tries to change a row fail, the
 *   run fails.
 * - Results of awaited jobs: the statement that records a result also sends it as a notification, on a channel of the
 *   waiting process.
 *
 * Variants were drained alternately within one run, in 4 to 6 rounds of 40,000 or 80,000 jobs. Each figure is the
 * median of the round-by-round ratios of a variant's rate to the rate of the present code with claims of 1,000. The
 * present code has:
 *
 * - Claims of 2,000: 1.12 (quartiles 1.11 to 1.19). Claims of 500 are 0.95 and 1.00, claims of 300 are 0.92. A drain is
 *   timed from its first job, so the first claim is free; it is a tenth of 20,000 jobs.
 * - Documents read by `convert_from`, one row each. `encode(..., 'escape')` is 1.03 and 1.04, all documents in one text
 *   are 0.97; for each, 1.00 is between the quartiles.
 * - Its own objects instead of the driver's rows: 1.13 times the rate without them, and half the worker's CPU.
 * - Rows that are locked before they are completed. Without the lock the rate is 0.91 and 1.16, but one row that
 *   another transaction has locked would delay the others.
 * - A completion that looks up each row and writes it by its ctid. All rows in one scan are 1.02 (0.99 to 1.04).
 * - Inserts of 1,000. Inserts of 2,000 make a bulk enqueue 1.06 times as fast (0.97 to 1.10).
 * - From previous measurements: a refill when the buffer is half empty (0.86 with three quarters), one connection for
 *   completions (1.00 with two), one connection to enqueue (with two, a bulk enqueue is 1.5 times as fast, but its jobs
 *   are no longer in order).
 */
import { randomInt } from "node:crypto";
import pg from "pg";
import { sleep } from "../clock.js";
import { withClient } from "../database.js";
import { importEngine } from "../engine-build.js";

export { admin } from "./saq-table.js";

export const version = "hand-written";

/** Maximum number of jobs in a claim. */
const batch = 2_000;
/** Maximum number of jobs in an insert. */
const most = 1_000;
const { newKey } = await importEngine("core/key.js");
const { ensureSchema } = await importEngine("postgres/schema/schema.js");
/**
 * For the engine's planner settings: a plan without an index is always a mistake, made with statistics of a new table.
 */
const { clientConfig } = await importEngine("postgres/connection/client-settings.js");

const epoch = "floor(extract(epoch from now()))::bigint";

/** Separates the texts of a list. In an array literal, every quotation mark of a document would have to be escaped. */
const separator = "\x1e";
const listed = (texts) => `string_to_array(${texts}::text, E'\\x1e')`;

const insert = {
  name: "insert",
  text: `with stored as (
      insert into saq_jobs (key, job, queue, status, priority, scheduled)
      select g.key, convert_to(g.document, 'UTF8'), 'default', 'queued', 0, ${epoch}
      from unnest(${listed("$1")}, ${listed("$2")}) as g(key, document))
    select pg_notify('saq:default', 'saq:enqueue')`,
};

/** The end of every document when it is stored. A claim and a completion replace the end by another one. */
const queued = ',"status":"queued"}';

// $1: maximum number of jobs, $2: token, $3: the new end of their documents. Returns the documents before the change.
const claim = {
  name: "claim",
  text: `with recursive step(priority) as (
      (select priority from saq_jobs where queue = 'default' and status = 'queued' and group_key is null
        order by priority limit 1)
      union all
      select (select j.priority from saq_jobs j where j.queue = 'default' and j.status = 'queued'
        and j.group_key is null and j.priority > step.priority order by j.priority limit 1)
      from step where step.priority is not null),
    picked as materialized (
      select r.* from step cross join lateral (
        select j.ctid as tid, j.job from saq_jobs j where j.queue = 'default' and j.status = 'queued'
          and j.group_key is null and j.priority = step.priority and j.scheduled <= ${epoch}
        order by j.scheduled, j.lock_key limit $1 for update of j skip locked) r
      limit $1)
    update saq_jobs j set status = 'active', lock_key = $2::int, scheduled = 0,
      job = substr(s.job, 1, octet_length(s.job) - ${queued.length}) || convert_to($3, 'UTF8')
    from picked s where j.ctid = s.tid returning convert_from(s.job, 'UTF8') as text`,
};

// $1: keys, $2: the number of the claim of each key, $3: the text to append to each document. For each claim, $4 is its
// token and $5 the end of its documents, of which the last $6 bytes are removed. That end contains the worker's name
// and the time, so it has changed if another worker has taken over the job.
//
// The status is compared as an expression, so that no index on the status can be used. With such an index, the planner
// would read every active row for each key. Rows are looked up in a subquery and written by their ctid, as in the
// engine: a join by key that was planned on an empty table would scan the whole table.
const settling = ({ lists = "", names = "", told = "" }) => `with given as materialized (
      select g.*, ($4::int[])[g.claim] as token, convert_to(($5::text[])[g.claim], 'UTF8') as ending
      from unnest(${listed("$1")}, ${listed("$2")}::int[], ${listed("$3")}${lists}) as g(key, claim, patch${names})),
    owned as materialized (
      select g.*, o.* from given g cross join lateral (
        select j.ctid as tid, j.job from saq_jobs j
        where j.key = g.key and j.lock_key = g.token and j.status || '' = 'active' for update of j skip locked) o)
    update saq_jobs j set status = 'complete', expire_at = ${epoch} + 600,
      job = substr(o.job, 1, octet_length(o.job) - $6) || convert_to(o.patch, 'UTF8')
    from owned o where j.ctid = o.tid
      and substr(o.job, octet_length(o.job) - octet_length(o.ending) + 1) = o.ending${told}`;
const settle = { name: "settle", text: settling({}) };
/** The same, plus notifications with the results of awaited jobs. $7: the payloads (`KEY RESULT`), $8: the channels. */
const settleAndTell = {
  name: "settle_and_tell",
  text: settling({
    lists: ", $7::text[], $8::text[]",
    names: ", told, address",
    told: " returning case when o.address is not null then pg_notify(o.address, o.told) end",
  }),
};

async function connect(url) {
  const client = new pg.Client(clientConfig(url, { noStartupOptions: false }));
  await client.connect();
  return client;
}

export const install = (url) => withClient(url, ensureSchema);

export async function producer(url) {
  const client = await connect(url);
  const waiting = [];
  let flushing = false;

  async function flush() {
    await new Promise((resolve) => setImmediate(resolve));
    while (waiting.length > 0) {
      const calls = waiting.splice(0, most);
      const values = [
        calls.map((call) => call.key).join(separator),
        calls.map((call) => call.document).join(separator),
      ];
      try {
        await client.query({ ...insert, values });
        for (const call of calls) call.resolve();
      } catch (error) {
        for (const call of calls) call.reject(error);
      }
    }
    flushing = false;
  }

  const documentOf = (key, kwargs, meta) =>
    JSON.stringify({
      function: "noop",
      kwargs,
      queue: "default",
      key,
      queued: Date.now(),
      meta,
      status: "queued",
    });

  const store = (key, kwargs, meta) =>
    new Promise((resolve, reject) => {
      const document = documentOf(key, kwargs, meta);
      waiting.push({ key, document, resolve, reject });
      if (!flushing) {
        flushing = true;
        void flush();
      }
    });

  const awaited = new Map();
  /** A channel on which only this producer listens. */
  const address = `minimal:${newKey()}`;
  let listener;
  async function listen() {
    const made = await connect(url);
    made.on("notification", ({ payload }) => {
      const space = payload.indexOf(" ");
      awaited.get(payload.slice(0, space))?.(JSON.parse(payload.slice(space)));
    });
    await made.query(`listen "${address}"`);
    return made;
  }

  async function roundTrip(kwargs) {
    listener ??= listen();
    await listener;
    const key = newKey();
    const result = new Promise((resolve) => awaited.set(key, resolve));
    await store(key, kwargs, { awaited: address });
    return result.finally(() => awaited.delete(key));
  }

  /** Stores jobs in order on one connection. The next documents are made while a statement is in progress. */
  async function enqueueMany(payloads) {
    let last;
    for (let from = 0; from < payloads.length; from += most) {
      const some = payloads.slice(from, from + most);
      const keys = some.map(() => newKey());
      const documents = some.map((kwargs, index) => documentOf(keys[index], kwargs));
      const values = [keys.join(separator), documents.join(separator)];
      const sent = client.query({ ...insert, values });
      await last;
      last = sent;
    }
    await last;
  }

  return {
    enqueue: (kwargs) => store(newKey(), kwargs),
    enqueueMany,
    roundTrip,
    incomplete: async () => {
      const { rows } = await client.query(
        "select count(*)::int as count from saq_jobs where status in ('queued', 'active')",
      );
      return rows[0].count;
    },
    stop: async () => {
      await (await listener)?.end();
      await client.end();
    },
  };
}

/** The part that a completion removes from the end that the claim has written. */
const passing = (ms) => `"touched":${ms},"status":"active"}`;
const passingBytes = passing(Date.now()).length;

/** Timeout of a completion in ms. It is tried every 10 ms, and changes no row twice. */
const timeoutMs = 1_000;

/** Found by experiment: a higher concurrency is not faster. */
const bestConcurrency = 200;

export async function worker(url, { concurrency: given, best, handler }) {
  const concurrency = best ? bestConcurrency : given;
  const [claimer, settler, listener] = await Promise.all([connect(url), connect(url), connect(url)]);
  await ensureSchema(listener);
  const workerId = `minimal:${newKey()}`;
  let buffer = [];
  let head = 0;
  let running = 0;
  let done = [];
  let claiming = false;
  let again = false;
  let dry = false;
  let settling = false;
  let stopped = false;

  async function take() {
    claiming = true;
    while (!stopped && (again || (!dry && buffer.length - head <= batch / 2))) {
      again = false;
      const token = randomInt(-(2 ** 31), 2 ** 31);
      const now = Date.now();
      const ending = `,"attempts":1,"started":${now},"worker_id":"${workerId}",${passing(now)}`;
      const { rows } = await claimer.query({ ...claim, values: [batch, token, ending] });
      const claimed = { token, ending };
      // New objects are made, because adding members to the driver's rows costs 9 of 18 us of worker CPU per job.
      const jobs = rows.map(({ text }) => ({ text, claimed }));
      dry = jobs.length < batch;
      buffer = head === buffer.length ? jobs : [...buffer.slice(head), ...jobs];
      head = 0;
      fill();
    }
    claiming = false;
  }

  function wake() {
    again = true;
    if (!claiming) void take();
  }

  function fill() {
    while (running < concurrency && head < buffer.length) {
      running++;
      void run(buffer[head++]);
    }
    if (!claiming && !dry && buffer.length - head <= batch / 2) void take();
  }

  async function run({ text, claimed }) {
    const { key, kwargs, meta } = JSON.parse(text);
    const result = JSON.stringify(await handler(kwargs));
    const now = Date.now();
    const patch = `"progress":1,"completed":${now},"touched":${now},"result":${result},"status":"complete"}`;
    const address = meta?.awaited;
    done.push({ key, claimed, patch, address, told: address && `${key} ${result}` });
    running--;
    if (!settling) {
      settling = true;
      setImmediate(flush);
    }
    fill();
  }

  async function flush() {
    while (done.length > 0) {
      const ends = done;
      done = [];
      const claims = [...new Set(ends.map((end) => end.claimed))];
      const places = new Map(claims.map((claimed, index) => [claimed, index + 1]));
      const isAwaited = ends.some((end) => end.address);
      const values = [
        ends.map((end) => end.key).join(separator),
        ends.map((end) => places.get(end.claimed)).join(separator),
        ends.map((end) => end.patch).join(separator),
        claims.map((claimed) => claimed.token),
        claims.map((claimed) => claimed.ending),
        passingBytes,
        ...(isAwaited ? [ends.map((end) => end.told), ends.map((end) => end.address)] : []),
      ];
      const statement = isAwaited ? settleAndTell : settle;
      let left = ends.length;
      // A claim of another worker may lock rows just after our claim has taken them, and holds them until it ends.
      const deadline = performance.now() + timeoutMs;
      for (let tries = 0; left > 0; tries++) {
        if (tries > 0 && performance.now() > deadline) throw new Error(`${left} jobs were not ours`);
        if (tries > 0) await sleep(10);
        const { rowCount } = await settler.query({ ...statement, values });
        left -= rowCount;
      }
    }
    settling = false;
  }

  listener.on("notification", wake);
  await listener.query('listen "saq:default"');
  const timer = setInterval(wake, 1_000);
  wake();
  return {
    stop: async () => {
      stopped = true;
      clearInterval(timer);
      while (claiming || settling) await sleep(1);
      await Promise.all([claimer.end(), settler.end(), listener.end()]);
    },
  };
}
