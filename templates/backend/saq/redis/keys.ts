/**
 * The keys of one queue. SAQ's own keys come first. Keys that begin with `saq:QUEUE:ts:` are known only to this engine;
 * Python does not read or write them.
 *
 * On a cluster, the name of the queue is in braces: `saq:{QUEUE}:`. The text between the first `{` and the next `}`
 * determines the slot of a key, and a script may use only keys of one slot. Python SAQ cannot use such keys.
 */
export class QueueKeys {
  /** Ids of jobs that wait or run; score 0 = due or running, otherwise the due time, epoch s. Sorted set. */
  readonly incomplete: string;
  /** Ids of due jobs, the next one first. List. */
  readonly queued: string;
  /** Ids of claimed jobs. List. */
  readonly active: string;
  /** Keys of the workers' info; score = when it expires, epoch ms. Sorted set. */
  readonly stats: string;
  /** Token of the claim by id, for jobs that workers of this engine claimed or that are being aborted. Hash. */
  readonly claims: string;
  /** Worker ids; score = when others may take over the jobs of the worker, epoch ms. Sorted set. */
  readonly leases: string;
  /**
   * Ids and document hashes of short-lived jobs that were stored a short time ago; score = when to forget them, epoch
   * ms. Sorted set.
   */
  readonly recent: string;
  /** Held for an interval by the process that sweeps stuck jobs. */
  readonly sweepLock: string;
  /** Recurring tasks: definition, last tick, pause and last run by name. Hashes. */
  readonly cron: { definitions: string; ticks: string; paused: string; lastRuns: string };
  /** What is paused: times, and who paused why, by target. Hash. */
  readonly pauses: string;
  /** Names of paused tasks whose jobs were put aside. Set. */
  readonly parkedTasks: string;
  /**
   * Channel for the ends of awaited jobs, for changes that someone other than the job's worker made, and for changes of
   * the pauses.
   */
  readonly events: string;
  readonly #prefix: string;
  readonly #jobPrefix: string;
  readonly #abortPrefix: string;

  /** `queueName` contains no `}` on a cluster. */
  constructor(
    readonly queueName: string,
    { isCluster }: { isCluster: boolean },
  ) {
    const name = isCluster ? `{${queueName}}` : queueName;
    this.#prefix = `saq:${name}:`;
    this.#jobPrefix = `saq:job:${name}:`;
    this.#abortPrefix = isCluster ? `saq:abort:${name}:` : "saq:abort:";
    this.incomplete = `${this.#prefix}incomplete`;
    this.queued = `${this.#prefix}queued`;
    this.active = `${this.#prefix}active`;
    this.stats = `${this.#prefix}stats`;
    const own = `${this.#prefix}ts:`;
    this.claims = `${own}claims`;
    this.leases = `${own}leases`;
    this.recent = `${own}recent`;
    this.sweepLock = `${own}sweep`;
    this.events = `${own}events`;
    this.pauses = `${own}pauses`;
    this.parkedTasks = `${own}parked`;
    this.cron = {
      definitions: `${own}cron:definitions`,
      ticks: `${own}cron:ticks`,
      paused: `${own}cron:paused`,
      lastRuns: `${own}cron:last-runs`,
    };
  }

  /** The id of a job is the key of its document, and the channel on which its changes are published. */
  id(jobKey: string): string {
    return this.#jobPrefix + jobKey;
  }

  jobKey(id: string): string {
    return id.slice(this.#jobPrefix.length);
  }

  /** Exists while a job is being aborted; Python refuses an enqueue of its key. SAQ puts no queue name into it. */
  abort(jobKey: string): string {
    return this.#abortPrefix + jobKey;
  }

  workerInfo(workerId: string): string {
    return `${this.#prefix}worker_info:${workerId}`;
  }

  /** The channel to which a worker is subscribed as long as it is connected. Nothing is published on it. */
  connected(workerId: string): string {
    return `${this.#prefix}ts:connected:${workerId}`;
  }

  /** Ids of finished jobs with this status; score = when the document expires, epoch ms, or +inf. Sorted set. */
  finished(status: "complete" | "failed" | "aborted"): string {
    return `${this.#prefix}ts:${status}`;
  }

  /**
   * Ids of jobs of a task that were put aside while the task is paused; score = when the job was enqueued or due, epoch
   * ms. Sorted set.
   */
  parked(task: string): string {
    return `${this.parkedTasks}:${task}`;
  }

  /** A pattern for SCAN that matches the ids of this queue only. */
  get idPattern(): string {
    return `${this.#jobPrefix.replace(/[\\*?[\]]/g, "\\$&")}*`;
  }
}

/** The channel on which one process receives the ends of the jobs that it waits for. */
export const replyChannel = (address: string): string => `saq:ts:reply:${address}`;
