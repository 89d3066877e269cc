/** Settles a job in its task's own transaction (`ctx.finish`). */

import type { Broker, Settlement } from "../../broker.js";
import type { QueueConfig } from "../../config/index.js";
import { requireCapability } from "../../core/capabilities.js";
import type { Receipt } from "../../core/claim.js";
import type { TransactionClient } from "../../core/transaction-client.js";
import { findTask, outputSchemaOf } from "../../tasks/task.js";
import { validateResult } from "../../tasks/validation.js";
import { type EndedAttempt, type SettlementRules, transactionalSettlement } from "./settlement.js";

export interface TransactionalFinish {
  settlement: Settlement;
  /** For the settlement that follows. It is not known here whether the transaction commits. */
  receipt: Receipt;
}

/**
 * Writes the settlement of the job in the transaction of `client`. Returns null if the attempt does not own the job any
 * more, or if the transaction of a previous `ctx.finish` is open or has committed.
 *
 * @throws InvalidResultError if the result cannot be stored, or the task's `output` refuses it
 * @throws ConfigError if the storage has no transactions
 * @throws SaqError no_transaction if `client` is not inside a transaction
 */
export async function finishInTransaction(
  {
    broker,
    config,
  }: { broker: Pick<Broker, "capabilities" | "finishWith">; config: Pick<QueueConfig, "tasks"> },
  attempt: EndedAttempt & { readonly transactionalFinish: TransactionalFinish | null },
  returned: unknown,
  client: TransactionClient,
  rules: SettlementRules,
): Promise<TransactionalFinish | null> {
  const { function: name } = attempt.fields;
  requireCapability("ctx.finish", "transactions", broker.capabilities);
  const task = findTask(config.tasks, name);
  const outputSchema = task && outputSchemaOf(task);
  const result = outputSchema ? await validateResult(name, outputSchema, returned) : returned;
  const settlement = transactionalSettlement(attempt, result, rules);
  const receipt = await broker.finishWith(client, settlement);
  return receipt === null ? null : { settlement, receipt };
}
