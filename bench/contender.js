// A contestant in a run: its address, its processes, and what every scenario does with them.
import { monotonic, sleep } from "./clock.js";
import { ContestantProcess } from "./process.js";
import { serverCpuUs } from "./server-cpu.js";

/** Whoever takes longer is measured by what it finished until then. */
const longestMs = 20_000;

export class Contender {
  #renew;

  /** `renew` makes its database anew and answers the address. */
  constructor({ name, contestant, url, renew, options, profileDir }) {
    Object.assign(this, { name, contestant, url, options, profileDir });
    this.#renew = renew;
  }

  /** A database that was made a moment ago: nothing was ever stored in it, nor analysed. */
  async renewed() {
    this.url = await this.#renew();
  }

  /** Calls `work` with the administrative side of the contestant. */
  async administer(work) {
    const admin = await this.contestant.admin(this.url);
    try {
      return await work(admin);
    } finally {
      await admin.close();
    }
  }

  /** No jobs, no dead rows, nothing left to write. */
  fresh() {
    return this.administer(async (admin) => {
      await admin.empty();
      await settled(admin);
    });
  }

  producer() {
    return this.#start("producer");
  }

  worker() {
    return this.#start("worker");
  }

  /** One process that stores jobs and runs them. */
  both() {
    return this.#start("both");
  }

  #start(role) {
    const { name, url, profileDir } = this;
    const { command } = this.contestant;
    return ContestantProcess.start({ contestant: name, role, url, command, profileDir });
  }

  /** Stores `count` jobs by the contestant's own bulk call. */
  async store(count) {
    const producer = await this.producer();
    await producer.call("enqueueMany", { count }).finally(() => producer.stop());
  }

  /**
   * Has `processes` workers finish what is due: from the first start of a handler to the last completion committed.
   * `work` goes to each worker, `scope` to `unfinished`; `jobs` is how many there are. Answers how many were finished in how many seconds.
   */
  async drain(admin, jobs, { processes = 1, work = {}, scope = {} } = {}) {
    const wal = admin.client && (await walPosition(admin.client));
    const workers = [];
    try {
      for (let i = 0; i < processes; i++) workers.push(await this.worker());
      const done = new Promise((resolve) => {
        let count = 0;
        for (const worker of workers) {
          worker.on("progress", ({ added }) => {
            count += added;
            if (count >= jobs) resolve();
          });
        }
      });
      const { concurrency } = this.options;
      await Promise.all(
        workers.map((worker) => worker.call("work", { concurrency, expected: jobs, ...work })),
      );
      const isWhole = await within(longestMs, done);
      while (isWhole && (await admin.unfinished(scope))) await sleep(1);
      const end = monotonic();
      const serverUs = admin.client ? await serverCpuUs(admin.client) : undefined;
      const reports = await Promise.all(workers.map((worker) => worker.call("report")));
      const count = reports.reduce((sum, report) => sum + report.count, 0);
      if (isWhole) await checkCounts(this.name, jobs, count, admin);
      return {
        jobs: count,
        seconds: (end - Math.min(...reports.filter((r) => r.first > 0).map((r) => r.first))) / 1e9,
        cpuUs: reports.reduce((sum, report) => sum + report.cpuUs, 0),
        serverUs,
        walBytes: wal ? await walBytes(admin.client, wal) : undefined,
        counts: reports.map((report) => report.count),
      };
    } finally {
      await Promise.all(workers.map((worker) => worker.stop()));
    }
  }
}

export async function settled(admin) {
  await admin.settle();
  await admin.client?.query("checkpoint");
}

/** @throws when a job ran twice or not at all, or was not recorded: no rate counts then */
export async function checkCounts(name, jobs, count, admin) {
  const finished = await admin.finished();
  if (count !== jobs || (finished !== null && finished !== jobs)) {
    throw new Error(`${name}: ${jobs} jobs, ${count} runs, ${finished} recorded as complete`);
  }
}

/** Whether the work was over within that time. */
async function within(ms, work) {
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, ms, false);
  });
  const isDone = await Promise.race([work.then(() => true), late]);
  clearTimeout(timer);
  return isDone;
}

async function walPosition(client) {
  const { rows } = await client.query("select pg_current_wal_insert_lsn()::text as position");
  return rows[0].position;
}

async function walBytes(client, since) {
  const { rows } = await client.query("select (pg_current_wal_insert_lsn() - $1::pg_lsn)::float8 as bytes", [
    since,
  ]);
  return rows[0].bytes;
}
