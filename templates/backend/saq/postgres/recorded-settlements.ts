/**
 * Checks which ends of attempts are recorded already: one statement reads many rows, without a lock. Used for ends that
 * tasks have recorded in their own transactions (`ctx.finish`), and for batches that were sent again because a response
 * was lost or rows were not written.
 */

import type { Settlement, SettleResult } from "../broker.js";
import { receiptOf } from "./receipt.js";
import type { TableSession } from "./table-session.js";

interface RecordedRow {
  /** Position of the item, from 1. */
  ordinal: number;
  /** Null if there is no row. */
  status: string | null;
  token: number | null;
  committed: boolean;
  /** The document does not name the worker of the claim. */
  unverified: boolean | null;
}

export class RecordedSettlements {
  constructor(
    private readonly session: TableSession,
    private readonly queueName: string,
  ) {}

  /**
   * Returns the results in the order of the items: null for each item whose result is not certain yet. Waits up to
   * `timeoutMs` for an unreachable database.
   */
  async resultsOf(items: readonly Settlement[], timeoutMs: number): Promise<(SettleResult | null)[]> {
    const { rows } = await this.session.pool.queryWithRetry<RecordedRow>(
      this.session.statements.recorded,
      [
        this.queueName,
        items.map((item) => item.key),
        items.map((item) => receiptOf(item).workerId),
        items.map((item) => receiptOf(item).transaction),
      ],
      { timeoutMs },
    );
    const results: (SettleResult | null)[] = items.map(() => null);
    for (const row of rows) {
      const item = items[row.ordinal - 1];
      if (item)
        results[row.ordinal - 1] =
          receiptOf(item).transaction === null ? statementResult(item, row) : transactionResult(item, row);
    }
    return results;
  }
}

/** A transaction may have committed without the end of the job (`rollback to savepoint`): then the job still runs. */
function transactionResult(item: Settlement, row: RecordedRow): SettleResult | null {
  const { token } = receiptOf(item);
  const stillRuns = row.token === token && (row.status === "active" || row.status === "aborting");
  return row.committed && !stillRuns ? "finished" : null;
}

function statementResult(item: Settlement, row: RecordedRow): SettleResult | null {
  const { status, keep } = item;
  const { token, place } = receiptOf(item);
  // A missing row that was to be deleted: our own statement, whose response was lost, or another process deleted it.
  if (row.status === null) return keep !== null && keep < 0 ? "applied" : "gone";
  if (row.token === token)
    return row.status === status && status !== "queued" && !row.unverified ? "applied" : null;
  const isRequeued = status === "queued" && row.status === "queued" && row.token === place;
  return isRequeued ? "applied" : "lost";
}
