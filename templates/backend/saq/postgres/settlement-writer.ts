/** Sends the statements that record the ends of attempts, many ends per statement. */

import type { Settlement } from "../broker.js";
import { endNotice } from "./channels.js";
import { isCancelled, isTransient } from "./connection/errors.js";
import type { RetryOptions } from "./connection/pool.js";
import { type DocumentSuffix, receiptOf } from "./receipt.js";
import { separator } from "./sql/fragments.js";
import type { TableSession } from "./table-session.js";

/**
 * A statement that is cancelled this often may take too long for the role's statement_timeout, so smaller ones are sent
 * instead. The back-off until then is 0.3 s in total.
 */
const mostCancelled = 3;

/** Sends one statement, with retries for `timeoutMs`. Returns for each item whether it was written. */
export type Write<Item> = (items: Item[], timeoutMs: number) => Promise<Written>;

export interface Written {
  each: boolean[];
  /** The statement was sent more than once: a previous try may have been carried out although its answer was lost. */
  resent: boolean;
}

export class SettlementWriter {
  constructor(
    private readonly session: TableSession,
    private readonly queueName: string,
  ) {}

  async settle(items: Settlement[], timeoutMs: number): Promise<Written> {
    const applied = new Set<string>();
    const told = this.#told(items);
    const { settle, settleAndTell } = this.session.statements;
    const { rows, resent } = await this.session.pool.queryWithRetry<{ key: string }>(
      told.length > 0 ? settleAndTell : settle,
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
        ...told,
      ],
      persistence(items.length, timeoutMs),
    );
    for (const { key } of rows) applied.add(key);
    return { each: items.map(({ key }) => applied.has(key)), resent };
  }

  async complete(items: Settlement[], timeoutMs: number): Promise<Written> {
    const { claims, suffixes, tokens } = claimsOf(items);
    const told = this.#told(items);
    const { complete, completeAndTell } = this.session.statements;
    const answer = await this.session.pool.queryWithRetry<{ written: string | null }>(
      told.length > 0 ? completeAndTell : complete,
      [
        this.queueName,
        items.map((item) => item.key).join(separator),
        claims.join(separator),
        // A patch continues the `keep` part of the suffix, so its opening brace is cut: the first here, others in SQL.
        items
          .map((item) => item.patch)
          .join(separator)
          .slice(1),
        items.map((item) => item.keep ?? "").join(separator),
        tokens,
        suffixes.map(({ keep, replace }) => Buffer.from(keep + replace)),
        suffixes.map(({ replace }) => Buffer.byteLength(replace)),
        items.length,
        ...told,
      ],
      persistence(items.length, timeoutMs),
    );
    return writtenOf(answer, items.length);
  }

  async remove(items: Settlement[], timeoutMs: number): Promise<Written> {
    const { claims, suffixes, tokens } = claimsOf(items);
    const answer = await this.session.pool.queryWithRetry<{ written: string | null }>(
      this.session.statements.remove,
      [
        this.queueName,
        items.map((item) => item.key).join(separator),
        claims.join(separator),
        tokens,
        suffixes.map(({ keep, replace }) => Buffer.from(keep + replace)),
        items.length,
      ],
      persistence(items.length, timeoutMs),
    );
    return writtenOf(answer, items.length);
  }

  /**
   * Returns the payloads and channels of the notifications that the statement sends for the ends that it records. Empty
   * if nobody waits for any of these ends.
   */
  #told(items: readonly Settlement[]): (string | null)[][] {
    if (items.every(({ awaited }) => awaited === false)) return [];
    const notices = items.map((item) => endNotice(this.queueName, item));
    return [notices.map(({ text }) => text), notices.map(({ channel }) => channel)];
  }
}

/** An end that changes only the last bytes of the document, and whose key can be an item of a list in one text. */
export const isSuffixSettlement = (item: Settlement): boolean =>
  item.unchanged &&
  item.status === "complete" &&
  receiptOf(item).suffix !== null &&
  receiptOf(item).transaction === null &&
  // `remove` sends no notifications: it is rare that the row of an awaited job is deleted, because such jobs are kept.
  (item.keep === null || item.keep >= 0 || item.awaited === false) &&
  !item.key.includes(separator);

/** Returns the distinct claims: `claims` has the position of each completion's claim, from 1; the rest is per claim. */
function claimsOf(items: readonly Settlement[]) {
  const places = new Map<number, number>();
  const suffixes: DocumentSuffix[] = [];
  const claims = items.map((item) => {
    const { token, suffix } = receiptOf(item);
    const known = places.get(token);
    if (known !== undefined) return known;
    const place = suffixes.push(suffix as DocumentSuffix);
    places.set(token, place);
    return place;
  });
  return { claims, suffixes, tokens: [...places.keys()] };
}

/** `written`: the positions of the completions that were written, from 1; null if all were. */
function writtenOf(
  { rows, resent }: { rows: { written: string | null }[]; resent: boolean },
  count: number,
): Written {
  const written = rows[0]?.written ?? null;
  if (written === null) return { each: Array<boolean>(count).fill(true), resent };
  const places = new Set(written.split(","));
  return { each: Array.from({ length: count }, (_, index) => places.has(String(index + 1))), resent };
}

/** Retries do no harm: a row is written only while it is active under the token of the claim. */
const persistence = (items: number, timeoutMs: number): RetryOptions => ({
  timeoutMs,
  again: (error, sent) => isTransient(error) && !(isCancelled(error) && items > 1 && sent >= mostCancelled),
});
