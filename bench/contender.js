// A contestant in a run: its address, its processes, and what every scenario does with them.
import { monotonic, sleep, within } from "./clock.js";
import { countingStatements, startMeter } from "./meter.js";
import { ContestantProcess } from "./process.js";

export class Contender {
  #renew;
  #filled;
  #countsStatements = false;

  /** `renew` makes its database anew and answers the address. */
  constructor({ name, contestant, url, renew, options, profileDir }) {
    Object.assign(this, { name, contestant, url, options, profileDir });
    this.#renew = renew;
  }

  /** A database that was made a moment ago: nothing was ever stored in it, nor analysed. */
  async renewed() {
    this.#filled = undefined;
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

  async empty(admin) {
    this.#filled = undefined;
    await admin.empty();
  }

  /** No jobs, no dead rows, nothing left to write. */
  fresh() {
    return this.administer(async (admin) => {
      await this.empty(admin);
      await this.settle(admin);
    });
  }

  /** No dead rows, nothing left to write. */
  async settle(admin) {
    await admin.settle();
    await admin.client?.query("checkpoint");
  }

  /**
   * `count` jobs of a kind and nothing else. They stay from round to round where the contestant can throw away the
   * others: making a million takes longer than all that is measured beside them. False where there is no such kind.
   */
  async filled(admin, kind, count) {
    const wanted = `${count} ${kind}`;
    if (this.#filled === wanted && (await admin.trim?.())) return true;
    await this.empty(admin);
    if (!(await admin.fill(kind, count))) return false;
    this.#filled = wanted;
    return true;
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

  /** How many jobs a drain has, of the contestant's own storing. */
  get jobs() {
    return Math.min(this.options.jobs, this.contestant.mostJobs ?? Number.POSITIVE_INFINITY);
  }

  /**
   * Stores `count` jobs by the contestant's own bulk call. `deleted`: each is deleted at its end; `text`: in each
   * payload.
   */
  async store(count, { deleted = false, text } = {}) {
    const producer = await this.producer();
    await producer.call("enqueueMany", { count, deleted, text }).finally(() => producer.stop());
  }

  /** Statements are counted for processes that are started during `work`. */
  async counting(work) {
    return countingStatements(this.url, async (isCounted) => {
      this.#countsStatements = isCounted;
      return await work().finally(() => {
        this.#countsStatements = false;
      });
    });
  }

  /** What the server does from now on; null where there is none to ask. */
  meter({ client }) {
    return client ? startMeter(client, { countsStatements: this.#countsStatements }) : null;
  }

  /**
   * Settles the tables and has `processes` workers finish what is due: from the first start of a handler to the last
   * completion committed. `work` goes to each worker, `scope` to `unfinished`; `jobs` is how many there are, or, with
   * `isPart`, after how many it is enough; `deleted`: none of them is left at the end. Answers how many were finished
   * in how many seconds, and what it cost.
   */
  async drain(admin, jobs, { processes = 1, work = {}, scope = {}, isPart = false, deleted = false } = {}) {
    const { concurrency, longest } = this.options;
    const [workers] = await Promise.all([
      Promise.all(Array.from({ length: processes }, () => this.worker())),
      this.settle(admin),
    ]);
    try {
      const meter = await this.meter(admin);
      const done = new Promise((resolve) => {
        let count = 0;
        for (const worker of workers) {
          worker.on("progress", ({ added }) => {
            count += added;
            if (count >= jobs) resolve();
          });
        }
      });
      await Promise.all(
        workers.map((worker) => worker.call("work", { concurrency, expected: jobs, ...work })),
      );
      const isWhole = (await within(longest, done)) && !isPart;
      while (isWhole && (await admin.unfinished(scope))) await sleep(1);
      const end = monotonic();
      const [cost, reports] = await Promise.all([
        meter?.read(),
        Promise.all(workers.map((worker) => worker.call("report"))),
      ]);
      const count = reports.reduce((sum, report) => sum + report.count, 0);
      if (isWhole) await checkCounts(this.name, jobs, count, admin, deleted ? 0 : jobs);
      return {
        jobs: count,
        seconds: (end - Math.min(...reports.filter((r) => r.first > 0).map((r) => r.first))) / 1e9,
        cpuUs: reports.reduce((sum, report) => sum + report.cpuUs, 0),
        ...cost,
        counts: reports.map((report) => report.count),
      };
    } finally {
      await Promise.all(workers.map((worker) => worker.stop()));
    }
  }
}

/** @throws when a job ran twice or not at all, or was not recorded: no rate counts then */
export async function checkCounts(name, jobs, count, admin, kept = jobs) {
  const finished = await admin.finished();
  if (count !== jobs || (finished !== null && finished !== kept)) {
    throw new Error(`${name}: ${jobs} jobs, ${count} runs, ${finished} recorded as complete`);
  }
}
