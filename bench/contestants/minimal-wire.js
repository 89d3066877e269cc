/**
 * The ceiling: the least code that leaves the same rows behind as the engine. It uses the engine's tables, its document
 * function and its kind of keys, commits as durably (enqueue, claim and acknowledgement each wait for the disk), fences
 * by the same token, and can nothing else: no options, retries, timeouts, groups, aborts, sweeps, logs or reconnects.
 * What the engine takes longer than this is the price of its features.
 *
 * Reviewed for durability (no connection of it or of the engine sets synchronous_commit), for what it stores (the
 * program compares columns and members of a finished job) and for handicaps. Kept: batches of 1,000 (300 and 500 drain at
 * 0.98 and 0.99 times the rate, 2,000 at 1.1), a refill at half (0.86 at three quarters), one acknowledger (1.00 with two),
 * one connection to enqueue (two store bulk 1.5 times as fast, and no longer in order). The engine's document function costs
 * it a fifth of its rate (1.25 times without); it fences by the token alone, without the worker's name.
 */
import { randomInt } from "node:crypto";
import pg from "pg";
import { sleep } from "../clock.js";
import { withClient } from "../database.js";
import { importEngine } from "../engine-build.js";

export { admin } from "./saq-table.js";

export const version = "hand-written";

const batch = 1_000;
const most = 1_000;
const { newKey } = await importEngine("key.js");
const { ensureSchema } = await importEngine("postgres/schema.js");
/** The engine's planner settings: any other plan than by index is a mistake of young statistics. */
const { clientConfig } = await importEngine("postgres/connection.js");

const epoch = "floor(extract(epoch from now()))::bigint";

const insert = {
  name: "insert",
  text: `with stored as (
      insert into saq_jobs (key, job, queue, status, priority, scheduled)
      select g.key, convert_to(g.document, 'UTF8'), 'default', 'queued', 0, ${epoch}
      from unnest($1::text[], $2::text[]) as g(key, document) on conflict (key) do nothing returning 1)
    select (select count(*) from stored), pg_notify('saq:default', 'saq:enqueue')`,
};

const claim = (stamp) => ({
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
        select j.ctid as tid, j.key, j.job from saq_jobs j where j.queue = 'default' and j.status = 'queued'
          and j.group_key is null and j.priority = step.priority and j.scheduled <= ${epoch}
        order by j.scheduled, j.lock_key limit $1 for update of j skip locked) r
      limit $1),
    stamped as materialized (
      select tid, document, document::text as text
      from (select tid, ${stamp}(job, 1, '{}', $3, null) as document from picked offset 0) s)
    update saq_jobs j set status = 'active', lock_key = $2::int,
      scheduled = coalesce((s.document->>'scheduled')::bigint, 0), job = convert_to(s.text, 'UTF8')
    from stamped s where j.ctid = s.tid returning j.key, s.text`,
});

/** Results of awaited jobs, in the statement that records them: `KEY RESULT`. */
const resultChannel = "minimal";

// The status is compared so that no index on it fits; by such an index the planner reads every active row for each key.
// Looked up in a subquery and written by its place, as the engine does: planned on an empty table, a join by key would
// walk over the whole table.
const acknowledge = (stamp) => ({
  name: "acknowledge",
  text: `with owned as materialized (
      select g.patch, o.* from unnest($1::text[], $2::int[], $3::text[]) as g(key, token, patch) cross join lateral (
        select j.ctid as tid, j.job from saq_jobs j
        where j.key = g.key and j.lock_key = g.token and j.status || '' = 'active' for update of j skip locked) o),
    told as (select pg_notify('${resultChannel}', told) from unnest($4::text[]) told)
    update saq_jobs j set status = 'complete', expire_at = ${epoch} + 600,
      job = convert_to(${stamp}(o.job, 0, '{error}', o.patch, null)::text, 'UTF8')
    from owned o where j.ctid = o.tid returning j.key, (select count(*) from told)`,
});

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
      const values = [calls.map((call) => call.key), calls.map((call) => call.document)];
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
      status: "queued",
      meta,
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
  let listener;
  async function listen() {
    const made = await connect(url);
    made.on("notification", ({ payload }) => {
      const space = payload.indexOf(" ");
      awaited.get(payload.slice(0, space))?.(JSON.parse(payload.slice(space)));
    });
    await made.query(`listen ${resultChannel}`);
    return made;
  }

  async function roundTrip(kwargs) {
    listener ??= listen();
    await listener;
    const key = newKey();
    const result = new Promise((resolve) => awaited.set(key, resolve));
    await store(key, kwargs, { awaited: true });
    return result.finally(() => awaited.delete(key));
  }

  /** In order on one connection; the next documents are made while a statement is under way. */
  async function enqueueMany(payloads) {
    let last;
    for (let from = 0; from < payloads.length; from += most) {
      const some = payloads.slice(from, from + most);
      const keys = some.map(() => newKey());
      const values = [keys, some.map((kwargs, index) => documentOf(keys[index], kwargs))];
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

/** Found by trying: more makes it no faster. */
const bestConcurrency = 200;

export async function worker(url, { concurrency: given, best, handler }) {
  const concurrency = best ? bestConcurrency : given;
  const [claimer, acknowledger, listener] = await Promise.all([connect(url), connect(url), connect(url)]);
  const names = await ensureSchema(listener);
  const claimStatement = claim(names.stamp);
  const acknowledgeStatement = acknowledge(names.stamp);
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
      const patch = `{"status":"active","started":${now},"touched":${now},"worker_id":"${workerId}"}`;
      const { rows } = await claimer.query({ ...claimStatement, values: [batch, token, patch] });
      dry = rows.length < batch;
      for (const row of rows) row.token = token;
      buffer = head === buffer.length ? rows : [...buffer.slice(head), ...rows];
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

  async function run(row) {
    const { key, kwargs, meta } = JSON.parse(row.text);
    const result = JSON.stringify(await handler(kwargs));
    const now = Date.now();
    row.patch = `{"status":"complete","progress":1,"completed":${now},"touched":${now},"result":${result}}`;
    row.told = meta?.awaited ? `${key} ${result}` : undefined;
    running--;
    done.push(row);
    if (!acknowledging) {
      acknowledging = true;
      setImmediate(flush);
    }
    fill();
  }

  async function flush() {
    while (done.length > 0) {
      const rows = done;
      done = [];
      const values = [
        rows.map((row) => row.key),
        rows.map((row) => row.token),
        rows.map((row) => row.patch),
        rows.flatMap((row) => row.told ?? []),
      ];
      const answer = await acknowledger.query({ ...acknowledgeStatement, values });
      if (answer.rowCount !== rows.length)
        throw new Error(`${rows.length - answer.rowCount} jobs were not ours`);
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
