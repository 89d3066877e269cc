/** Sends the statements that record how attempts ended, many attempts per statement. */

import type { Settlement } from "../broker.js";
import { settlementNotification } from "./channels.js";
import { isCancelled, isTransient } from "./connection/errors.js";
import type { RetryOptions } from "./connection/pool.js";
import { type DocumentSuffix, receiptOf } from "./receipt.js";
import { separator } from "./sql/fragments.js";
import type { TableSession } from "./table-session.js";

/**
 * A statement that is cancelled this often may take too long for the role's statement_timeout, so smaller ones are sent
 * instead. The back-off until then is 0.3 s in total.
 */
const maxCancellations = 3;

/** Sends one statement, with retries for `timeoutMs`. */
export type Write<Item> = (items: Item[], timeoutMs: number) => Promise<Written>;

export interface Written {
  /** For each item: whether the statement changed its row. */
  applied: boolean[];
  /** The statement was sent more than once: a previous try may have been carried out although its answer was lost. */
  resent: boolean;
}

export class SettlementWriter {
  constructor(
    private readonly session: TableSession,
    private readonly queueName: string,
  ) {}

  async settle(items: Settlement[], timeoutMs: number): Promise<Written> {
    const notifications = this.#notifications(items);
    const { settle, settleAndNotify } = this.session.statements;
    const { rows, resent } = await this.session.pool.queryWithRetry<{ key: string }>(
      notifications.length > 0 ? settleAndNotify : settle,
      [
        this.queueName,
        items.map((item) => item.key),
        items.map((item) => receiptOf(item).token),
        items.map((item) => receiptOf(item).place),
        items.map((item) => item.status),
        items.map((item) => item.patch),
        items.map((item) => `{${item.removed.join(",")}}`),
        items.map((item) => item.charge),
        items.map((item) => item.keep),
        items.map((item) => item.scheduled),
        items.map((item) => receiptOf(item).workerId),
        ...notifications,
      ],
      retryOptions(items.length, timeoutMs),
    );
    const written = new Set(rows.map(({ key }) => key));
    return { applied: items.map(({ key }) => written.has(key)), resent };
  }

  async complete(items: Settlement[], timeoutMs: number): Promise<Written> {
    const { claims, suffixes, tokens } = claimsOf(items);
    const notifications = this.#notifications(items);
    const { complete, completeAndNotify } = this.session.statements;
    const answer = await this.session.pool.queryWithRetry<{ written: string | null }>(
      notifications.length > 0 ? completeAndNotify : complete,
      [
        this.queueName,
        items.map((item) => item.key).join(separator),
        claims.join(separator),
        // A patch continues the `kept` part of the suffix, so its opening brace is cut: the first here, others in SQL.
        items
          .map((item) => item.patch)
          .join(separator)
          .slice(1),
        items.map((item) => item.keep ?? "").join(separator),
        tokens,
        suffixes.map(({ kept, replaced }) => Buffer.from(kept + replaced)),
        suffixes.map(({ replaced }) => Buffer.byteLength(replaced)),
        items.length,
        ...notifications,
      ],
      retryOptions(items.length, timeoutMs),
    );
    return writtenOf(answer, items.length);
  }

  async completeAndDelete(items: Settlement[], timeoutMs: number): Promise<Written> {
    const { claims, suffixes, tokens } = claimsOf(items);
    const answer = await this.session.pool.queryWithRetry<{ written: string | null }>(
      this.session.statements.completeAndDelete,
      [
        this.queueName,
        items.map((item) => item.key).join(separator),
        claims.join(separator),
        tokens,
        suffixes.map(({ kept, replaced }) => Buffer.from(kept + replaced)),
        items.length,
      ],
      retryOptions(items.length, timeoutMs),
    );
    return writtenOf(answer, items.length);
  }

  /**
   * Returns the payloads and channels of the notifications that the statement sends for the ends that it records. Empty
   * if nobody waits for any of these ends.
   */
  #notifications(items: readonly Settlement[]): (string | null)[][] {
    if (items.every(({ awaited }) => awaited === false)) return [];
    const sent = items.map((item) => settlementNotification(this.queueName, item));
    return [sent.map(({ text }) => text), sent.map(({ channel }) => channel)];
  }
}

/** An end that changes only the last bytes of the document, and whose key can be an item of a list in one text. */
export const isSuffixSettlement = (item: Settlement): boolean =>
  item.unchanged &&
  item.status === "complete" &&
  receiptOf(item).suffix !== null &&
  receiptOf(item).transaction === null &&
  // `completeAndDelete` sends no notifications, because it is rare that the row of an awaited job is deleted.
  (item.keep === null || item.keep >= 0 || item.awaited === false) &&
  !item.key.includes(separator);

/** Returns the distinct claims: `claims` has the position of each completion's claim, from 1; the rest is per claim. */
function claimsOf(items: readonly Settlement[]) {
  const positionOf = new Map<number, number>();
  const suffixes: DocumentSuffix[] = [];
  const claims = items.map((item) => {
    const { token, suffix } = receiptOf(item);
    const known = positionOf.get(token);
    if (known !== undefined) return known;
    const position = suffixes.push(suffix as DocumentSuffix);
    positionOf.set(token, position);
    return position;
  });
  return { claims, suffixes, tokens: [...positionOf.keys()] };
}

/** `written`: the positions of the completions that were written, from 1; null if all were. */
function writtenOf(
  { rows, resent }: { rows: { written: string | null }[]; resent: boolean },
  count: number,
): Written {
  const written = rows[0]?.written ?? null;
  if (written === null) return { applied: Array<boolean>(count).fill(true), resent };
  const positions = new Set(written.split(","));
  return { applied: Array.from({ length: count }, (_, index) => positions.has(String(index + 1))), resent };
}

/** Retries do no harm: a row is written only while it is active under the token of the claim. */
const retryOptions = (itemCount: number, timeoutMs: number): RetryOptions => ({
  timeoutMs,
  retryIf: (error, sentCount) =>
    isTransient(error) && !(isCancelled(error) && itemCount > 1 && sentCount >= maxCancellations),
});
