/** The statements that record the ends of attempts, many per statement. */
import type { DocumentEnding, Settlement } from "../broker.js";
import { endNotice } from "./channels.js";
import { isCancelled, isPassing } from "./connection.js";
import type { Persistence } from "./connections.js";
import { separator } from "./fragments.js";
import type { PostgresServer } from "./server.js";

/**
 * A statement that is cancelled that often may be too long for the role's statement_timeout: then smaller ones. 0.3 s
 * of back-off in all.
 */
const mostCancelled = 3;

/** Sends one statement, for as long as `patience` in ms, and tells of each item whether it was written. */
export type Write<Item> = (items: Item[], patience: number) => Promise<Written>;

export interface Written {
  each: boolean[];
  /** Sent more than once: an earlier one may have been carried out although its answer got lost. */
  resent: boolean;
}

export class EndWriter {
  constructor(
    private readonly server: PostgresServer,
    private readonly queueName: string,
  ) {}

  async settle(items: Settlement[], patience: number): Promise<Written> {
    const applied = new Set<string>();
    const told = this.#told(items);
    const { settle, settleAndTell } = this.server.statements;
    const { rows, resent } = await this.server.queryAgain<{ key: string }>(
      told.length > 0 ? settleAndTell : settle,
      [
        this.queueName,
        items.map((item) => item.key),
        items.map((item) => item.token),
        items.map((item) => item.place),
        items.map((item) => item.status),
        items.map((item) => item.patch),
        items.map((item) => `{${item.removed.join(",")}}`),
        items.map((item) => item.charge),
        items.map((item) => item.keep),
        items.map((item) => item.scheduled),
        items.map((item) => item.workerId),
        ...told,
      ],
      persistence(items.length, patience),
    );
    for (const { key } of rows) applied.add(key);
    return { each: items.map(({ key }) => applied.has(key)), resent };
  }

  async complete(items: Completion[], patience: number): Promise<Written> {
    const { claims, endings, tokens } = claimsOf(items);
    const told = this.#told(items);
    const { complete, completeAndTell } = this.server.statements;
    const answer = await this.server.queryAgain<{ written: string | null }>(
      told.length > 0 ? completeAndTell : complete,
      [
        this.queueName,
        items.map((item) => item.key).join(separator),
        claims.join(separator),
        // Each without its brace: it goes on where the ending's lasting part stops.
        items
          .map((item) => item.patch)
          .join(separator)
          .slice(1),
        items.map((item) => item.keep ?? "").join(separator),
        tokens,
        endings.map(({ lasting, passing }) => Buffer.from(lasting + passing)),
        endings.map(({ passing }) => Buffer.byteLength(passing)),
        items.length,
        ...told,
      ],
      persistence(items.length, patience),
    );
    return writtenOf(answer, items.length);
  }

  async remove(items: Completion[], patience: number): Promise<Written> {
    const { claims, endings, tokens } = claimsOf(items);
    const answer = await this.server.queryAgain<{ written: string | null }>(
      this.server.statements.remove,
      [
        this.queueName,
        items.map((item) => item.key).join(separator),
        claims.join(separator),
        tokens,
        endings.map(({ lasting, passing }) => Buffer.from(lasting + passing)),
        items.length,
      ],
      persistence(items.length, patience),
    );
    return writtenOf(answer, items.length);
  }

  /**
   * Texts and channels of what is told, by the statement that records the ends and of what it records; none where
   * nobody waits.
   */
  #told(items: readonly Settlement[]): (string | null)[][] {
    if (items.every(({ awaited }) => awaited === false)) return [];
    const notices = items.map((item) => endNotice(this.queueName, item));
    return [notices.map(({ text }) => text), notices.map(({ channel }) => channel)];
  }
}

/** An end that only changes how the document ends, and can stand in a list of texts. */
export type Completion = Settlement & { ending: DocumentEnding };

export const isCompletion = (item: Settlement): item is Completion =>
  item.ending !== null &&
  item.status === "complete" &&
  item.finishedIn === null &&
  // A deleted row of which somebody is told is rare: an awaited job is kept.
  (item.keep === null || item.keep >= 0 || item.awaited === false) &&
  !item.key.includes(separator);

/** The claims of some completions: of each completion the place of its claim, from 1, and what the claims wrote. */
function claimsOf(items: readonly Completion[]) {
  const places = new Map<number, number>();
  const endings: DocumentEnding[] = [];
  const claims = items.map(({ token, ending }) => {
    const known = places.get(token);
    if (known !== undefined) return known;
    const place = endings.push(ending);
    places.set(token, place);
    return place;
  });
  return { claims, endings, tokens: [...places.keys()] };
}

/** `written`: the places of those that were written, from 1; null when all were. */
function writtenOf(
  { rows, resent }: { rows: { written: string | null }[]; resent: boolean },
  count: number,
): Written {
  const written = rows[0]?.written ?? null;
  if (written === null) return { each: Array<boolean>(count).fill(true), resent };
  const places = new Set(written.split(","));
  return { each: Array.from({ length: count }, (_, index) => places.has(String(index + 1))), resent };
}

/** Each row is written by its token, so that a second time changes nothing. */
const persistence = (items: number, patience: number): Persistence => ({
  patience,
  again: (error, sent) => isPassing(error) && !(isCancelled(error) && items > 1 && sent >= mostCancelled),
});
