/** The end that a task gives its job itself, in a transaction of its own (`ctx.finish`). */
import type { Broker, Settlement } from "../broker.js";
import type { QueueConfig } from "../config/index.js";
import { findTask, outputSchemaOf, type TransactionClient } from "../tasks/task.js";
import { validateResult } from "../tasks/validation.js";
import { type Attempted, type OutcomeRules, ownCompletion } from "./outcome.js";

export interface OwnEnd {
  settlement: Settlement;
  /** Its name; whether it commits is not known here. */
  transaction: string;
}

/**
 * Null when the job is not this attempt's any more, or an earlier own end of it counts.
 *
 * @throws InvalidResultError when the result cannot be stored, or the task's `output` refuses it
 */
export async function writeOwnEnd(
  { broker, config }: { broker: Pick<Broker, "finishWith">; config: Pick<QueueConfig, "tasks"> },
  attempt: Attempted & { readonly ownEnd: OwnEnd | null },
  returned: unknown,
  client: TransactionClient,
  rules: OutcomeRules,
): Promise<OwnEnd | null> {
  const { function: name } = attempt.fields;
  const task = findTask(config.tasks, name);
  const output = task && outputSchemaOf(task);
  const result = output ? await validateResult(name, output, returned) : returned;
  const settlement = ownCompletion(attempt, result, rules);
  const earlier = attempt.ownEnd?.transaction ?? null;
  const transaction = await broker.finishWith(client, settlement, earlier);
  return transaction === null ? null : { settlement, transaction };
}
