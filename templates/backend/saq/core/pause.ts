/**
 * What is paused in a queue, and where that is stored. While the whole queue, a task or a group is paused, workers of
 * this engine start none of its jobs. Jobs that run go on.
 */

/** What a pause is about: a task, the jobs of a group, or, if both are null, the whole queue. */
export interface PauseTarget {
  /** Name of the task; null if the pause is not about one task. */
  task: string | null;
  /** Key of the group; null if the pause is not about one group. */
  group: string | null;
}

/** One pause, as it is stored. Times are epoch ms, by the clock of the database or of Redis. */
export interface Pause extends PauseTarget {
  /** When it began. */
  since: number;
  /** When it ends by itself; null: it lasts until `resume`. */
  until: number | null;
  /** Who paused; null if the caller did not say. */
  by: string | null;
  /** Why; null if the caller did not say. */
  reason: string | null;
}

/** A pause that is about to be stored. */
export interface NewPause extends PauseTarget {
  /** How long it lasts, s; null: until `resume`. */
  seconds: number | null;
  by: string | null;
  reason: string | null;
}

/** The tasks and groups whose jobs a claim must leave where they are. At least one of the lists is not empty. */
export interface PausedJobs {
  readonly tasks: readonly string[];
  readonly groups: readonly string[];
}

export interface PauseStore {
  /**
   * Stores a pause in place of a previous one of the same target, and notifies the workers. Returns it as stored.
   *
   * @throws SaqError config if nothing can be stored
   */
  set(pause: NewPause): Promise<Pause>;
  /**
   * Removes the pause of a target, and notifies the workers. Returns true if it was in effect.
   *
   * @throws SaqError config if there are pauses that this process may not change
   */
  remove(target: PauseTarget): Promise<boolean>;
  /** Returns the pauses that are in effect: first that of the queue, then those of tasks, then those of groups. */
  list(): Promise<Pause[]>;
  /**
   * Calls `listener` with the pauses: once before it returns, after each change of which storage notifies, and after
   * each heartbeat of a worker. Without push, also after each look for work. Returns a function that ends this.
   */
  watch(listener: (pauses: readonly Pause[]) => void): Promise<() => Promise<void>>;
  /** Reads the pauses now, for the listeners of `watch`. */
  refresh(): Promise<void>;
}

/** How a pause is stored: the kind of its target and the name. */
export type PauseKind = "queue" | "task" | "group";

export const kindOf = ({ task, group }: PauseTarget): PauseKind =>
  task !== null ? "task" : group !== null ? "group" : "queue";

/** The name of the task or the key of the group; empty for the whole queue. */
export const nameIn = ({ task, group }: PauseTarget): string => task ?? group ?? "";

export const targetOf = (kind: PauseKind, name: string): PauseTarget => ({
  task: kind === "task" ? name : null,
  group: kind === "group" ? name : null,
});

/** Returns what is paused, for people: `queue mail`, `task sendMail of queue mail`. */
export function describeTarget(target: PauseTarget, queueName: string): string {
  const kind = kindOf(target);
  return kind === "queue" ? `queue ${queueName}` : `${kind} ${nameIn(target)} of queue ${queueName}`;
}

const order: Record<PauseKind, number> = { queue: 0, task: 1, group: 2 };

/** Compares two pauses by the order of `PauseStore.list`. */
export const comparePauses = (a: PauseTarget, b: PauseTarget): number =>
  order[kindOf(a)] - order[kindOf(b)] || (nameIn(a) < nameIn(b) ? -1 : 1);
