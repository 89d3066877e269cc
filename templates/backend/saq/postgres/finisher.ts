/**
 * The end of a job inside its task's own transaction, so that what the task did and that it was done are one. Whether
 * that transaction commits is for its owner to say, and may stay unknown to him (a connection that dies at the commit);
 * the server knows, by the transaction's number.
 */
import type { Claim, Settlement } from "../broker.js";
import { SaqError } from "../errors.js";
import type { TransactionClient } from "../tasks/task.js";
import { isTakenOver } from "../transitions.js";
import { editDocument } from "../wire.js";
import { endNotice } from "./channels.js";
import type { PostgresServer } from "./server.js";

interface OwnedRow {
  document: string;
  transaction: string;
}

export class Finisher {
  constructor(
    private readonly server: PostgresServer,
    private readonly queueName: string,
  ) {}

  /**
   * Statement by statement, because the document is edited here: in the caller's transaction there is no second
   * try for one that jsonb cannot hold. Each parameter stands once or tells its type: libraries number them anew.
   *
   * @see Broker.finishWith
   */
  async finishWith(
    client: TransactionClient,
    settlement: Settlement,
    earlier: string | null,
  ): Promise<string | null> {
    const { key, token, status, patch, removed, keep } = settlement;
    const jobs = this.server.jobsTable;
    // What an earlier transaction of this attempt wrote must not be waited for when that one is still open: it may be
    // this attempt's own, on another connection. In this very transaction a row that is still active says that the
    // caller has rolled back to a savepoint.
    const { rows } = await client.query(
      `select pg_catalog.convert_from(job, 'UTF8') as document, pg_current_xact_id()::text as transaction from ${jobs}
        where key = $2 and queue || '' = $1 and lock_key = $3::int and status || '' = 'active'
          and (coalesce(pg_catalog.pg_xact_status($4::text::xid8), 'aborted') = 'aborted'
            or $4::text = pg_current_xact_id()::text) for update`,
      [this.queueName, key, token, earlier],
    );
    const [row] = rows as unknown as OwnedRow[];
    if (!row || this.#isTakenOver(settlement, row.document)) return null;
    const document = editDocument(row.document, patch, removed);
    const { channel, text } = endNotice(this.queueName, settlement);
    // A client outside a transaction, a pool for instance, has let go of the row by now.
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
        `ctx.finish of job ${key} got a client that is not inside a transaction; nothing was written. Give it the ` +
          "client on which you began one, not a pool",
      );
    }
    if (text !== null) {
      // Counted, because not every library can read what a void function answers.
      await client.query("select count(pg_catalog.pg_notify($1, $2))", [channel, text]);
    }
    return row.transaction;
  }

  /** Not while it is open, and not when it was rolled back. */
  async hasCommitted(transaction: string): Promise<boolean> {
    const { rows } = await this.server.queryAgain<{ status: string | null }>(
      { name: "saq_transaction", text: "select pg_catalog.pg_xact_status($1::text::xid8) as status" },
      [transaction],
    );
    return rows[0]?.status === "committed";
  }

  #isTakenOver(claim: Claim, document: string): boolean {
    const { key, token } = claim;
    return isTakenOver(
      { key, token, document, queue: this.queueName, status: "active", scheduled: 0 },
      claim,
    );
  }
}
