/**
 * Which ends of attempts are recorded already: many read by one statement, without a lock. For those that tasks have
 * recorded in their own transactions (`ctx.finish`), and for batches that were sent again because the answer was lost.
 */
import type { Settlement, SettleResult } from "../broker.js";
import type { PostgresServer } from "./server.js";

interface RecordedRow {
  nth: number;
  /** Null where there is no row. */
  status: string | null;
  token: number | null;
  committed: boolean;
  strange: boolean | null;
}

export class RecordedEnds {
  constructor(
    private readonly server: PostgresServer,
    private readonly queueName: string,
  ) {}

  /**
   * The results of those that nothing can change any more, in order; null for the others. Waits `patience` ms for a
   * lost database.
   */
  async of(items: readonly Settlement[], patience: number): Promise<(SettleResult | null)[]> {
    const { rows } = await this.server.queryAgain<RecordedRow>(
      this.server.statements.recorded,
      [
        this.queueName,
        items.map((item) => item.key),
        items.map((item) => item.workerId),
        items.map((item) => item.finishedIn),
      ],
      { patience },
    );
    const results: (SettleResult | null)[] = items.map(() => null);
    for (const row of rows) {
      const item = items[row.nth - 1];
      if (item) results[row.nth - 1] = item.finishedIn === null ? written(item, row) : finished(item, row);
    }
    return results;
  }
}

/** A transaction may have committed without the task's end: `rollback to savepoint`. The row runs on then. */
function finished({ token }: Settlement, row: RecordedRow): SettleResult | null {
  const runsOn = row.token === token && (row.status === "active" || row.status === "aborting");
  return row.committed && !runsOn ? "finished" : null;
}

function written({ token, status, place, keep }: Settlement, row: RecordedRow): SettleResult | null {
  // A row that was to be deleted is gone: by our own statement, whose answer got lost, or by somebody else.
  if (row.status === null) return keep !== null && keep < 0 ? "applied" : "gone";
  if (row.token === token)
    return row.status === status && status !== "queued" && !row.strange ? "applied" : null;
  const isBack = status === "queued" && row.status === "queued" && row.token === place;
  return isBack ? "applied" : "lost";
}
