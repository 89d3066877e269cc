/** Pauses of a queue, its tasks and its groups: checks what a caller asks for, and stores it. */
import type { Broker } from "../broker.js";
import type { QueueConfig } from "../config/index.js";
import { requireCapability } from "../core/capabilities.js";
import { latestSecond } from "../core/job.js";
import { describeTarget, type Pause, type PauseTarget } from "../core/pause.js";
import { InvalidJobError, SaqError } from "../errors.js";
import { findTask } from "../tasks/task.js";

/** What `resume` ends: the pause of a task, of a group, or, without either, of the whole queue. */
export interface ResumeOptions<TaskName extends string = string> {
  /** Name of the task. @defaultValue none */
  task?: TaskName | undefined;
  /** Key of the group. Refused on Redis. @defaultValue none */
  group?: string | undefined;
}

/** What `pause` pauses, and what it records about the pause. */
export interface PauseOptions<TaskName extends string = string> extends ResumeOptions<TaskName> {
  /** How long, s, more than 0. After this time, jobs start by themselves. @defaultValue until `resume` */
  seconds?: number | undefined;
  /** Who pauses, at most 200 characters. @defaultValue none */
  by?: string | undefined;
  /** Why, at most 1,000 characters. @defaultValue none */
  reason?: string | undefined;
}

const maxByLength = 200;
const maxReasonLength = 1_000;
/** Maximum size of a group's key, bytes: that of the option `groupKey` of a job. */
const maxGroupBytes = 2_000;

const optionNames = ["task", "group", "seconds", "by", "reason"] as const satisfies (keyof PauseOptions)[];

export class QueuePauses {
  /** `anyTask`: the queue takes names of tasks that are not in the configuration. */
  constructor(
    private readonly config: Pick<QueueConfig, "name" | "tasks">,
    private readonly broker: Broker,
    private readonly anyTask: boolean,
  ) {}

  async pause(options: PauseOptions): Promise<Pause> {
    const target = this.#targetOf("pause", options);
    const { task } = target;
    if (task !== null && !this.#isKnown(task)) throw this.#unknownTask("pause", task);
    const { seconds, by, reason } = options;
    return this.broker.pauses.set({
      ...target,
      seconds: checkedSeconds(seconds),
      by: checkedText("by", by, maxByLength),
      reason: checkedText("reason", reason, maxReasonLength),
    });
  }

  async resume(options: ResumeOptions): Promise<boolean> {
    const target = this.#targetOf("resume", options);
    const hasEnded = await this.broker.pauses.remove(target);
    // A task that is paused may have been removed from the configuration since.
    const { task } = target;
    if (!hasEnded && task !== null && !this.#isKnown(task)) throw this.#unknownTask("resume", task);
    return hasEnded;
  }

  list(): Promise<Pause[]> {
    return this.broker.pauses.list();
  }

  #targetOf(call: "pause" | "resume", options: PauseOptions): PauseTarget {
    const unknown = Object.keys(options).find((name) => !optionNames.some((known) => known === name));
    if (unknown !== undefined)
      throw new InvalidJobError(`${call}: there is no option ${unknown} (known: ${optionNames.join(", ")})`);
    const { task, group } = options;
    if (task !== undefined && group !== undefined) {
      throw new InvalidJobError(
        `${call}: task and group cannot be combined, got task ${shown(task)} and group ${shown(group)}. ` +
          `Call ${call} once for each`,
      );
    }
    if (task !== undefined) checkName(call, "task", task);
    if (group !== undefined) {
      checkName(call, "group", group);
      const alternative = "Leave group out to pause the whole queue, or name a task.";
      requireCapability(
        `${call}({ group: ${shown(group)} })`,
        "groups",
        this.broker.capabilities,
        alternative,
      );
    }
    return { task: task ?? null, group: group ?? null };
  }

  #isKnown(task: string): boolean {
    return this.anyTask || findTask(this.config.tasks, task) !== undefined;
  }

  #unknownTask(call: string, task: string): SaqError {
    const { name, tasks } = this.config;
    const known = Object.keys(tasks).join(", ") || "none";
    const what = describeTarget({ task, group: null }, name);
    return new SaqError(
      "unknown_task",
      `${call}: there is no ${what} (known tasks: ${known}). Choose one of these, or leave task out for the whole ` +
        "queue",
    );
  }
}

const shown = (value: unknown): string => JSON.stringify(value) ?? String(value);

function checkName(call: string, option: "task" | "group", value: unknown): void {
  const isName = typeof value === "string" && value !== "" && !value.includes("\0");
  if (isName && Buffer.byteLength(value) <= maxGroupBytes) return;
  throw new InvalidJobError(
    `${call}: ${option} must be a text of 1 to ${maxGroupBytes} bytes without a NUL, got ${shown(value).slice(0, 100)}`,
  );
}

function checkedSeconds(seconds: number | undefined): number | null {
  if (seconds === undefined) return null;
  if (typeof seconds === "number" && seconds > 0 && seconds <= latestSecond / 10) return seconds;
  throw new InvalidJobError(
    `pause: seconds must be a number of more than 0 and at most ${latestSecond / 10}, got ${shown(seconds)}. ` +
      "Leave it out for a pause that lasts until resume",
  );
}

function checkedText(option: "by" | "reason", text: string | undefined, max: number): string | null {
  if (text === undefined) return null;
  if (typeof text === "string" && text.length <= max && !text.includes("\0")) return text;
  throw new InvalidJobError(
    `pause: ${option} must be a text of at most ${max} characters without a NUL, got ${shown(text).slice(0, 100)}`,
  );
}
