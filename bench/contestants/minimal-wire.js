/**
 * The ceiling: the least code that leaves the same rows behind as the engine. It uses the engine's tables and indexes, its
 * kind of keys and its way to change a document by its end, byte for byte; it commits as durably (enqueue, claim and
 * acknowledgement each wait for the disk), sends one NOTIFY per statement that stores, and can nothing else: no options,
 * retries of jobs, timeouts, groups, aborts, sweeps, logs or reconnects, and every job that it claims is as an enqueue has
 * stored it. What the engine takes longer than this is the price of its features.
 *
 * Reviewed:
 *
 * - durability: no connection of it or of the engine sets synchronous_commit, and the server runs with fsync
 * - documents and columns: the program compares the columns and the members, in order, of a finished job with the engine's
 * - tokens: a random one for each claim
 * - fence: a completion changes an active row with that token whose document still ends as its claim has left it, with the
 *   worker's name and the time in it; a row that none of its tries could change fails the run
 * - results of awaited jobs are told in the statement that records them, on a channel of the process that waits
 *
 * Variants were drained in turns within one run, 4 to 6 rounds of 40,000 or 80,000 jobs, and compared round by round: the
 * median of the ratios to what is kept, with claims of 1,000. Kept:
 *
 * - claims of 2,000: 1.12 (quartiles 1.11 to 1.19); 500 are 0.95 and 1.00, 300 are 0.92. A drain is timed from its first job,
 *   so that the first claim is for free, a tenth of 20,000 jobs.
 * - documents by `convert_from`, a row for each: `encode(..., 'escape')` 1.03 and 1.04, all in one text 0.97, each with 1.00
 *   between its quartiles
 * - objects of its own instead of the driver's rows: 1.13 times the rate without, half the worker's CPU
 * - rows locked before they are completed: without 0.91 and 1.16, but one that somebody's transaction holds would hold up
 *   the others
 * - a completion that looks up each row and writes it by its place; all rows in one walk 1.02 (0.99 to 1.04)
 * - inserts of 1,000; 2,000 store bulk 1.06 times as fast (0.97 to 1.10)
 * - from before: a refill at half (0.86 at three quarters), one acknowledger (1.00 with two), one connection to enqueue (two
 *   store bulk 1.5 times as fast, and no longer in order)
 */
import { randomInt } from "node:crypto";
import pg from "pg";
import { sleep } from "../clock.js";
import { withClient } from "../database.js";
import { importEngine } from "../engine-build.js";

export { admin } from "./saq-table.js";

export const version = "hand-written";

/** Jobs of a claim. */
const batch = 2_000;
/** Jobs of an insert. */
const most = 1_000;
const { newKey } = await importEngine("key.js");
const { ensureSchema } = await importEngine("postgres/schema.js");
/** The engine's planner settings: any other plan than by index is a mistake of young statistics. */
const { clientConfig } = await importEngine("postgres/connection.js");

const epoch = "floor(extract(epoch from now()))::bigint";

/** Between the texts of a list: an array's literal would escape each quote of a document. */
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

/** How every document ends as it is stored. A claim and a completion put another end in its place. */
const queued = ',"status":"queued"}';

// $1 how many, $2 token, $3 the end of their documents from now on. Answers the documents as they were.
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

// $1 keys, $2 which claim each is of, $3 what is appended; per claim $4 token and $5 end of its documents, of which the
// last $6 bytes go. That end names the worker and the time: whoever took a job over has changed it.
//
// The status is compared so that no index on it fits; by such an index the planner reads every active row for each key.
// Looked up in a subquery and written by its place, as the engine does: planned on an empty table, a join by key would
// walk over the whole table.
const acknowledging = ({ lists = "", names = "", told = "" }) => `with given as materialized (
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
const acknowledge = { name: "acknowledge", text: acknowledging({}) };
/** The same, and results of awaited jobs: $7 what is told, `KEY RESULT`, $8 on which channel. */
const acknowledgeAndTell = {
  name: "acknowledge_and_tell",
  text: acknowledging({
    lists: ", $7::text[], $8::text[]",
    names: ", told, address",
    told: " returning case when o.address is not null then pg_notify(o.address, o.told) end",
  }),
};

async function connect(url) {
  const client = new pg.Client(clientConfig(url, { plain: false }));
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
  /** A channel that nobody else listens to. */
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

  /** In order on one connection; the next documents are made while a statement is under way. */
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

/** What a completion takes away from the end that the claim has written. */
const passing = (ms) => `"touched":${ms},"status":"active"}`;
const passingBytes = passing(Date.now()).length;

/** Of a completion, which is tried every 10 ms; it changes no row twice. */
const patienceMs = 1_000;

/** Found by trying: more makes it no faster. */
const bestConcurrency = 200;

export async function worker(url, { concurrency: given, best, handler }) {
  const concurrency = best ? bestConcurrency : given;
  const [claimer, acknowledger, listener] = await Promise.all([connect(url), connect(url), connect(url)]);
  await ensureSchema(listener);
  const workerId = `minimal:${newKey()}`;
  let buffer = [];
  let head = 0;
  let running = 0;
  let done = [];
  let claiming = false;
  let again = false;
  let dry = false;
  let acknowledging = false;
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
      // Objects of its own: members added to the driver's rows cost 9 of 18 us of worker CPU per job.
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
    if (!acknowledging) {
      acknowledging = true;
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
      const statement = isAwaited ? acknowledgeAndTell : acknowledge;
      let left = ends.length;
      // The claim of another worker holds rows that it came upon just after ours had taken them, until it ends.
      const deadline = performance.now() + patienceMs;
      for (let tries = 0; left > 0; tries++) {
        if (tries > 0 && performance.now() > deadline) throw new Error(`${left} jobs were not ours`);
        if (tries > 0) await sleep(10);
        const { rowCount } = await acknowledger.query({ ...statement, values });
        left -= rowCount;
      }
    }
    acknowledging = false;
  }

  listener.on("notification", wake);
  await listener.query('listen "saq:default"');
  const timer = setInterval(wake, 1_000);
  wake();
  return {
    stop: async () => {
      stopped = true;
      clearInterval(timer);
      while (claiming || acknowledging) await sleep(1);
      await Promise.all([claimer.end(), acknowledger.end(), listener.end()]);
    },
  };
}
