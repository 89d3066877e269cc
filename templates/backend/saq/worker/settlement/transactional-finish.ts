/** Settles a job in its task's own transaction (`ctx.finish`). */
import type { Broker, Settlement } from "../../broker.js";
import type { QueueConfig } from "../../config/index.js";
import { findTask, outputSchemaOf, type TransactionClient } from "../../tasks/task.js";
import { validateResult } from "../../tasks/validation.js";
import { type EndedAttempt, type SettlementRules, transactionalSettlement } from "./settlement.js";

export interface TransactionalFinish {
  settlement: Settlement;
  /** Name of the transaction. It is not known here whether it commits. */
  transaction: string;
}

/**
 * Writes the settlement of the job in the transaction of `client`. Returns null if the attempt does not own the job any
 * more, or if the transaction of a previous `ctx.finish` is open or has committed.
 *
 * @throws InvalidResultError if the result cannot be stored, or the task's `output` refuses it
 * @throws SaqError no_transaction if `client` is not inside a transaction
 */
export async function finishInTransaction(
  { broker, config }: { broker: Pick<Broker, "finishWith">; config: Pick<QueueConfig, "tasks"> },
  attempt: EndedAttempt & { readonly transactionalFinish: TransactionalFinish | null },
  returned: unknown,
  client: TransactionClient,
  rules: SettlementRules,
): Promise<TransactionalFinish | null> {
  const { function: name } = attempt.fields;
  const task = findTask(config.tasks, name);
  const output = task && outputSchemaOf(task);
  const result = output ? await validateResult(name, output, returned) : returned;
  const settlement = transactionalSettlement(attempt, result, rules);
  const earlier = attempt.transactionalFinish?.transaction ?? null;
  const transaction = await broker.finishWith(client, settlement, earlier);
  return transaction === null ? null : { settlement, transaction };
}
