/**
 * Stores what is paused: a hash with one field per target.
 *
 * The list of due jobs contains only ids. So a claim that takes a job of a paused task puts it aside, into a sorted set
 * of this task, in the order in which the jobs were enqueued or due. This happens once for each job. After the pause,
 * claims take jobs from this set first, so no job has to be moved back.
 */
import {
  comparePauses,
  kindOf,
  type NewPause,
  nameIn,
  type Pause,
  type PauseKind,
  type PauseStore,
  type PauseTarget,
  targetOf,
} from "../core/pause.js";
import { PauseWatchers } from "../storage/pause-watchers.js";
import type { RedisConnection } from "./connection.js";
import { pausesMessage } from "./events.js";
import type { QueueKeys } from "./keys.js";
import { removePauseScript, setPauseScript } from "./lua/pauses.js";
import { mapOf } from "./servers/node-connection.js";

/** What is stored: pauses by target, and the names of the tasks with jobs that were put aside. */
export type StoredPauses = [pauses: string[], parkedTasks: string[]];

/** Returns the names of the tasks with jobs that were put aside, sorted. */
export const readParkedTasks = async (connection: RedisConnection, keys: QueueKeys): Promise<string[]> =>
  ((await connection.command(["SMEMBERS", keys.parkedTasks])) as string[]).sort();

export class RedisPauses implements PauseStore {
  /** Called when jobs that were put aside may be claimed. */
  onReleased: () => void = () => {};
  readonly #watchers: PauseWatchers;
  /** Tasks that may have jobs that were put aside. */
  readonly #parkedTasks = new Set<string>();

  constructor(
    private readonly connection: RedisConnection,
    private readonly keys: QueueKeys,
  ) {
    this.#watchers = new PauseWatchers({
      refresh: () => this.refresh(),
      isClosed: () => connection.isClosed,
      logger: connection.logger,
    });
  }

  async set(pause: NewPause): Promise<Pause> {
    await this.connection.connect();
    const { seconds, by, reason } = pause;
    const stored = await this.connection.run(
      setPauseScript,
      [this.keys.pauses],
      [
        fieldOf(pause),
        seconds === null ? "" : String(seconds),
        JSON.stringify({ by, reason }),
        this.keys.events,
        pausesMessage,
      ],
    );
    return pauseOf(fieldOf(pause), String(stored));
  }

  async remove(target: PauseTarget): Promise<boolean> {
    await this.connection.connect();
    const args = [fieldOf(target), this.keys.events, pausesMessage];
    return (await this.connection.run(removePauseScript, [this.keys.pauses], args)) === 1;
  }

  async list(): Promise<Pause[]> {
    await this.connection.connect();
    const [pauses] = await this.#read();
    return this.#inEffect(pauses);
  }

  async watch(listener: (pauses: readonly Pause[]) => void): Promise<() => Promise<void>> {
    await this.connection.connect();
    this.#watchers.add(listener);
    const unsubscribe = await this.connection.subscribe(
      this.keys.events,
      (text) => {
        if (text === pausesMessage) this.#watchers.changed();
      },
      () => this.#watchers.changed(),
    );
    await this.refresh();
    return async () => {
      this.#watchers.remove(listener);
      await unsubscribe();
    };
  }

  async refresh(): Promise<void> {
    const read = this.begin();
    this.onRead(read, await this.#read());
  }

  /** Called before a script is sent that also reads the pauses. Returns the number of the read. */
  begin(): number {
    return this.#watchers.begin();
  }

  /** Takes what a read has returned. */
  onRead(read: number, [stored, parkedTasks]: StoredPauses): void {
    for (const task of parkedTasks) this.#parkedTasks.add(task);
    const pauses = this.#inEffect(stored);
    this.#watchers.pass(read, pauses);
    const paused = new Set(pauses.map(({ task }) => task));
    if (parkedTasks.some((task) => !paused.has(task))) this.onReleased();
  }

  /** Returns a task that is not paused and may have jobs that were put aside; null if there is none. */
  releasedTask(pausedTasks: readonly string[]): string | null {
    for (const task of this.#parkedTasks) if (!pausedTasks.includes(task)) return task;
    return null;
  }

  /** Records that jobs of one of these tasks were put aside. */
  onParked(tasks: readonly string[]): void {
    for (const task of tasks) this.#parkedTasks.add(task);
  }

  /** Records that no job of the task is left that was put aside. */
  onDrained(task: string): void {
    this.#parkedTasks.delete(task);
  }

  async #read(): Promise<StoredPauses> {
    const { connection, keys } = this;
    const [pauses, parkedTasks] = await Promise.all([
      connection.command(["HGETALL", keys.pauses]),
      readParkedTasks(connection, keys),
    ]);
    return [pauses as string[], parkedTasks];
  }

  #inEffect(stored: readonly string[]): Pause[] {
    const now = this.connection.clock.now();
    return [...mapOf(stored)]
      .map(([field, text]) => pauseOf(field, text))
      .filter(({ until }) => until === null || until > now)
      .sort(comparePauses);
  }
}

const fieldOf = (target: PauseTarget): string => `${kindOf(target)} ${nameIn(target)}`;

function pauseOf(field: string, text: string): Pause {
  const [kind = "", name = ""] = parts(field, 1);
  const [since, until, details = ""] = parts(text, 2);
  const { by, reason } = JSON.parse(details) as Pick<Pause, "by" | "reason">;
  return {
    ...targetOf(kind as PauseKind, name),
    since: Number(since),
    until: until === "-" ? null : Number(until),
    by,
    reason,
  };
}

/** Splits a text at its first spaces. The last part may contain spaces. */
function parts(text: string, spaces: number): string[] {
  const all = text.split(" ");
  return [...all.slice(0, spaces), all.slice(spaces).join(" ")];
}
