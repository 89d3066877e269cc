/**
 * Where a claim begins to read while tasks are paused. The claim must read past each of their jobs (about 1 us for
 * each), and a million of them may be in front of the others. So a claim begins where a previous one has ended: what
 * lies before is of paused tasks, or was claimed.
 *
 * A job may also be put before that place: one that is given back, or one whose transaction commits late. Therefore a
 * claim reads from the beginning from time to time, and never begins later than some seconds ago.
 */
import { lastPlace } from "./sql/fragments.js";

/** Jobs that were due within this time, s, are always read: their transactions may just have committed. */
const recentSeconds = 5;
/** Minimum time between two claims that read from the beginning, ms. */
const minPauseMs = 10_000;
/**
 * That time is at least this many times as long as it took to read past the jobs of paused tasks, so that one worker
 * uses 2 % of a core of the server for it.
 */
const pauseFactor = 50;
/** A claim that takes longer than this has probably read past many jobs, ms. */
const slowMs = 50;

/** Before every due time, epoch s. */
const beginning = -1e12;
const lowestPriority = -(2 ** 15);

/** A place in the order of the waiting jobs. */
export interface Position {
  priority: number;
  /** When the job is due, epoch s. */
  scheduled: number;
  /** `lock_key` of the row. */
  place: number;
}

/** What a claim has read. */
export interface ReadJobs {
  /**
   * The claim need not read again what lies before this position, or at it. Null: it has read all jobs that were due,
   * and those that it did not return are of paused tasks.
   */
  until: Position | null;
  /** The database's clock when the claim was sent, epoch ms. */
  sentAt: number;
  tookMs: number;
}

/**
 * The parameters of a claim: positions of some priorities (three lists), then the second after which the jobs of the
 * other priorities are read, then the priority below which another second counts, and this second.
 */
export type ClaimStartValues = [
  priorities: number[],
  scheduled: number[],
  places: number[],
  after: number,
  below: number,
  afterBelow: number,
];

/** Returns SQL that is true for a job `j` after the start of the claim. `first`: the number of its first parameter. */
export const isAfterStart = (first: number): string =>
  `(j.scheduled, j.lock_key) > (coalesce(begun.scheduled,
      case when step.priority::int < $${first + 4}::int then $${first + 5}::bigint else $${first + 3}::bigint end),
    coalesce(begun.place, ${lastPlace}))`;

/** Returns SQL for the rows `begun` and their join with the priorities (`step`), for `isAfterStart`. */
export const startRows = (first: number) => ({
  begun: `begun as (select * from unnest($${first}::int[], $${first + 1}::bigint[], $${first + 2}::int[])
      as b(priority, scheduled, place))`,
  join: "left join begun on begun.priority = step.priority::int",
});

export class ClaimStart {
  #tasks = "";
  /** For priorities without a position: all jobs that were due in this second or before it have been read. */
  #after = beginning;
  /** The same for priorities below `#below`. */
  #afterBelow = beginning;
  #below = lowestPriority;
  readonly #positions = new Map<number, Position>();
  /** How long slow claims have taken since one has read from the beginning, ms. */
  #slowMs = 0;
  /** When to read from the beginning again, by performance.now(). */
  #renewAt = 0;

  /** Returns where the next claim begins. */
  values(tasks: readonly string[]): ClaimStartValues {
    const names = tasks.join("\n");
    const now = performance.now();
    if (names !== this.#tasks || now >= this.#renewAt) {
      this.#tasks = names;
      this.#after = beginning;
      this.#forgetPositions();
      this.#slowMs = 0;
      this.#renewAt = now + minPauseMs;
    }
    const positions = [...this.#positions.values()];
    return [
      positions.map(({ priority }) => priority),
      positions.map(({ scheduled }) => scheduled),
      positions.map(({ place }) => place),
      this.#after,
      this.#below,
      this.#afterBelow,
    ];
  }

  /** Takes what a claim has read. */
  onRead({ until, sentAt, tookMs }: ReadJobs): void {
    if (tookMs > slowMs) {
      this.#slowMs += tookMs;
      this.#renewAt = Math.max(this.#renewAt, performance.now() + pauseFactor * this.#slowMs);
    }
    const latest = Math.floor(sentAt / 1_000) - recentSeconds - 1;
    if (until === null) {
      this.#after = latest;
      this.#forgetPositions();
      return;
    }
    // The order is by priority first: all jobs of lower numbers have been read.
    const { priority, scheduled } = until;
    this.#below = priority;
    this.#afterBelow = latest;
    for (const other of this.#positions.keys()) if (other < priority) this.#positions.delete(other);
    this.#positions.set(
      priority,
      scheduled <= latest ? until : { priority, scheduled: latest, place: lastPlace },
    );
  }

  #forgetPositions(): void {
    this.#positions.clear();
    this.#below = lowestPriority;
    this.#afterBelow = beginning;
  }
}
