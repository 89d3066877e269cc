/** Checks what a caller says about the jobs that a list or a change is about. */
import { type Status, statuses } from "../core/job.js";
import type { JobSelection } from "../core/job-selection.js";
import { jsonText } from "../core/json-text.js";
import { InvalidJobError } from "../errors.js";

/** All conditions except the statuses. */
type Conditions = Omit<Partial<JobSelection>, "statuses">;

const texts = ["task", "keyPrefix", "error"] as const satisfies readonly (keyof Conditions)[];
const times = ["enqueuedAfter", "enqueuedBefore"] as const satisfies readonly (keyof Conditions)[];
const names: readonly string[] = ["statuses", "due", ...texts, ...times];

/** @throws InvalidJobError if a text or a time is not one */
export function checkConditions(at: string, conditions: Conditions): void {
  for (const name of texts) {
    const text: unknown = conditions[name];
    if (text !== undefined && typeof text !== "string")
      throw new InvalidJobError(`${at}: ${name} must be a text, got ${jsonText(text)}`);
  }
  for (const name of times) {
    const time: unknown = conditions[name];
    const isTime = typeof time === "number" || Object.prototype.toString.call(time) === "[object Date]";
    if (time !== undefined && !(isTime && Number.isFinite(Number(time))))
      throw new InvalidJobError(`${at}: ${name} must be a Date or epoch ms, got ${jsonText(time)}`);
  }
}

/**
 * Returns the selection of a change. A condition that is undefined is refused: a change would then concern more jobs
 * than its caller meant.
 *
 * @throws InvalidJobError for an unknown condition, or one that is not what it must be
 */
export function checkedSelection(
  at: string,
  filter: Partial<JobSelection>,
  defaults: Pick<JobSelection, "statuses" | "due">,
): JobSelection {
  if (typeof filter !== "object" || filter === null)
    throw new InvalidJobError(`${at}: the filter must be an object, got ${jsonText(filter)}`);
  for (const [name, value] of Object.entries(filter)) {
    if (!names.includes(name))
      throw new InvalidJobError(`${at}: there is no condition "${name}"; conditions: ${names.join(", ")}`);
    if (value === undefined)
      throw new InvalidJobError(
        `${at}: ${name} is undefined. Leave it out to change the jobs whatever it is`,
      );
  }
  const { statuses: given = [], due } = filter;
  if (!Array.isArray(given) || !given.every(isStatus))
    throw new InvalidJobError(
      `${at}: statuses must be a list of ${statuses.slice(1).join(", ")}, got ${jsonText(given)}`,
    );
  if (due !== undefined && typeof due !== "boolean")
    throw new InvalidJobError(`${at}: due must be true or false, got ${jsonText(due)}`);
  checkConditions(at, filter);
  const selection = { ...defaults, ...filter };
  if (due !== undefined && !selection.statuses.includes("queued"))
    throw new InvalidJobError(
      `${at}: due is a condition of queued jobs, and the statuses are ${selection.statuses.join(", ")}. ` +
        "Add queued to statuses, or leave due out",
    );
  return selection;
}

const isStatus = (status: unknown): status is Status =>
  status !== "new" && (statuses as readonly unknown[]).includes(status);
