// A contestant in a run: its address, its processes, and the operations that scenarios share.
import { monotonic, sleep, within } from "./clock.js";
import { countingStatements, startMeter } from "./meter.js";
import { ContestantProcess } from "./process.js";

export class Contender {
  #renew;
  #filled;
  #countsStatements = false;

  /** `renew` creates the contestant's database again and returns its address. */
  constructor({ name, contestant, url, renew, options, profileDir }) {
    Object.assign(this, { name, contestant, url, options, profileDir });
    this.#renew = renew;
  }

  /** Replaces the database by a new one, in which nothing was ever stored or analysed. */
  async renewed() {
    this.#filled = undefined;
    this.url = await this.#renew();
  }

  /** Calls `work` with the contestant's `admin` object and returns its result. */
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

  /** Leaves no jobs, no dead rows and no unwritten pages. */
  fresh() {
    return this.administer(async (admin) => {
      await this.empty(admin);
      await this.settle(admin);
    });
  }

  /** Leaves no dead rows and no unwritten pages. */
  async settle(admin) {
    await admin.settle();
    await admin.client?.query("checkpoint");
  }

  /**
   * Fills the table with `count` jobs of one kind and nothing else. If the contestant can delete all other jobs, these
   * jobs stay for the next rounds, because creating a million takes longer than all measurements that use them. Returns
   * false if the contestant does not have this kind of jobs.
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

  /** Starts one process that stores jobs and runs them. */
  both() {
    return this.#start("both");
  }

  #start(role) {
    const { name, url, profileDir } = this;
    const { command } = this.contestant;
    return ContestantProcess.start({ contestant: name, role, url, command, profileDir });
  }

  /** The number of jobs in a drain, which the contestant itself stores. */
  get jobs() {
    return Math.min(this.options.jobs, this.contestant.mostJobs ?? Number.POSITIVE_INFINITY);
  }

  /**
   * Stores `count` jobs with the contestant's own bulk call. `deleted`: each job is deleted when it ends. `text`: a
   * text that each payload contains.
   */
  async store(count, { deleted = false, text } = {}) {
    const producer = await this.producer();
    await producer.call("enqueueMany", { count, deleted, text }).finally(() => producer.stop());
  }

  /** Calls `work` and returns its result. Statements of processes that start during `work` are counted. */
  async counting(work) {
    return countingStatements(this.url, async (isCounted) => {
      this.#countsStatements = isCounted;
      return await work().finally(() => {
        this.#countsStatements = false;
      });
    });
  }

  /** Starts to measure the server's work. On Redis, only its CPU time is measured. */
  async meter({ client, serverCpuUs }) {
    if (client) return startMeter(client, { countsStatements: this.#countsStatements });
    const before = await serverCpuUs();
    return { read: async () => ({ serverUs: (await serverCpuUs()) - before }) };
  }

  /**
   * Settles the tables, then lets `processes` workers finish the due jobs. The time runs from the first start of a
   * handler to the commit of the last completion. `work` is passed to each worker, `scope` to `unfinished`. `jobs` is
   * the number of due jobs or, with `isPart`, the number after which the drain ends. It ends after `longest` ms at the
   * latest. `deleted`: no job is left at the end. Returns the number of finished jobs, the time in seconds, and the
   * cost.
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
        meter.read(),
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

/** @throws Error if a job ran twice or not at all, or was not recorded as complete: its rate must not count then */
export async function checkCounts(name, jobs, count, admin, kept = jobs) {
  const finished = await admin.finished();
  if (count !== jobs || (finished !== null && finished !== kept)) {
    throw new Error(`${name}: ${jobs} jobs, ${count} runs, ${finished} recorded as complete`);
  }
}
