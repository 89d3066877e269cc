/**
 * Records the end of a job inside its task's own transaction, so that the task's writes and the end of the job commit
 * together or not at all. The owner of the transaction commits it, and may never learn whether the commit succeeded
 * (when the connection dies at the commit). The server knows it, by the transaction's number.
 */

import type { Settlement } from "../broker.js";
import type { Claim, Receipt } from "../core/claim.js";
import { isTakenOver } from "../core/stored-job.js";
import type { TransactionClient } from "../core/transaction-client.js";
import { editDocument } from "../core/wire.js";
import { SaqError } from "../errors.js";
import { settlementNotification } from "./channels.js";
import { newReceipt, receiptOf } from "./receipt.js";
import type { TableSession } from "./table-session.js";

interface OwnedRow {
  document: string;
  transaction: string;
}

export class Finisher {
  constructor(
    private readonly session: TableSession,
    private readonly queueName: string,
  ) {}

  /**
   * Locks the row, edits the document in JavaScript and writes it, in separate statements. SQL does not edit it,
   * because jsonb cannot hold every document, and the caller's transaction allows no second try after an error. Each
   * parameter is used once or has an explicit type, because some libraries renumber parameters.
   *
   * @see Broker.finishWith
   */
  async finishWith(client: TransactionClient, settlement: Settlement): Promise<Receipt | null> {
    const { key, status, patch, removed, keep } = settlement;
    const owned = receiptOf(settlement);
    const jobs = this.session.jobsTable;
    // Never wait for a row that an earlier transaction of this attempt has written while that transaction is open: the
    // attempt itself may have it open on another connection. If the earlier transaction is this one and the row is
    // still active, the caller has rolled back to a savepoint.
    const { rows } = await client.query(
      `select pg_catalog.convert_from(job, 'UTF8') as document, pg_current_xact_id()::text as transaction from ${jobs}
        where key = $2 and queue || '' = $1 and lock_key = $3::int and status || '' = 'active'
          and (coalesce(pg_catalog.pg_xact_status($4::text::xid8), 'aborted') = 'aborted'
            or $4::text = pg_current_xact_id()::text) for update`,
      [this.queueName, key, owned.token, owned.transaction],
    );
    const [row] = rows as unknown as OwnedRow[];
    if (!row || this.#isTakenOver(settlement, row.document)) return null;
    const document = editDocument(row.document, patch, removed);
    const { channel, text } = settlementNotification(this.queueName, settlement);
    // A client outside a transaction, for example a pool, no longer holds the row here: its transaction number differs.
    const written = await (keep !== null && keep < 0
      ? client.query(`delete from ${jobs} where key = $1 and pg_current_xact_id()::text = $2 returning key`, [
          key,
          row.transaction,
        ])
      : client.query(
          `update ${jobs} set status = $2, job = pg_catalog.convert_to($3, 'UTF8'),
            expire_at = pg_catalog.floor(extract(epoch from clock_timestamp()))::bigint + $4::bigint
            where key = $1 and pg_current_xact_id()::text = $5 returning key`,
          [key, status, document, keep, row.transaction],
        ));
    if (written.rows.length === 0) {
      throw new SaqError(
        "no_transaction",
        `ctx.finish of job ${key} got a client that is not inside a transaction; nothing was written. Pass the ` +
          "client on which you began the transaction, not a pool",
      );
    }
    if (text !== null) {
      // With count(), because not every library can read the result of a void function.
      await client.query("select count(pg_catalog.pg_notify($1, $2))", [channel, text]);
    }
    return newReceipt({ ...owned, transaction: row.transaction });
  }

  /** Returns false while the transaction is open, and after it was rolled back. */
  async hasCommitted(transaction: string): Promise<boolean> {
    const { rows } = await this.session.pool.queryWithRetry<{ status: string | null }>(
      { name: "saq_transaction", text: "select pg_catalog.pg_xact_status($1::text::xid8) as status" },
      [transaction],
    );
    return rows[0]?.status === "committed";
  }

  #isTakenOver(claim: Claim, document: string): boolean {
    return isTakenOver(
      { key: claim.key, document, queue: this.queueName, status: "active", scheduled: 0 },
      receiptOf(claim),
    );
  }
}
