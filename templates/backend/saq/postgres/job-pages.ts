/**
 * Reads jobs page by page in the order of their keys. Each page looks at a bounded number of rows, so that no statement
 * takes long, however many rows the table has.
 */
import type { Status } from "../core/job.js";
import type { JobSelection } from "../core/job-selection.js";
import { type RawRow, type Row, toRow } from "./raw-rows.js";
import type { TableSession } from "./table-session.js";

/** Maximum number of jobs of a page. */
const pageSize = 500;
/** How many rows a page looks at in an index that has only rows with wanted statuses, and in the primary key. */
const indexedRows = 2_000;
const walkedRows = 5_000;

const runningStatuses: readonly Status[] = ["active", "aborting"];
const failedStatuses: readonly Status[] = ["failed", "aborted"];

export const areRunning = (statuses: readonly Status[]): boolean =>
  statuses.every((status) => runningStatuses.includes(status));
export const areFailed = (statuses: readonly Status[]): boolean =>
  statuses.every((status) => failedStatuses.includes(status));

/** A row as it was read: its place and version show whether it has changed since. */
export interface PageRow extends Row {
  readonly place: string;
  readonly version: string;
  /** The database's clock, epoch ms. */
  readonly clock: number;
}

type RawPageRow = { last: string | null; more: boolean; place: string; version: string } & {
  [Name in keyof RawRow]: RawRow[Name] | null;
};

/**
 * Reads one page. Its rows may match the selection: the caller checks them with `isSelected`. `after` is the key before
 * the page; null for the first one. Returns the rows, and the key after which the next page begins; null after the last
 * page.
 */
export async function readPage(
  session: TableSession,
  queueName: string,
  {
    selection: { statuses, due, keyPrefix, task, error },
    after,
    newestFirst = false,
    timeoutSeconds,
  }: { selection: JobSelection; after: string | null; newestFirst?: boolean; timeoutSeconds?: number },
): Promise<{ rows: PageRow[]; next: string | null }> {
  // PostgreSQL accepts no NUL in a text, and no key has one.
  if (keyPrefix?.includes("\0")) return { rows: [], next: null };
  const wanted = [...new Set(statuses)];
  const { statement, maxRows } = statementOf(session, wanted, { newestFirst, isFirst: after === null });
  const values = [
    queueName,
    wanted,
    newestFirst ? after : (after ?? ""),
    maxRows,
    pageSize,
    due ?? null,
    keyPrefix ?? null,
    ...bytesOfText(task, ({ length }) => [0, length]),
    ...bytesOfText(error, ({ length }) => [1, length - 1]),
  ];
  const { rows: raw } =
    timeoutSeconds === undefined
      ? await session.pool.queryWithRetry<RawPageRow>(statement, values)
      : await session.pool.transaction(async (client) => {
          await client.query(`set local statement_timeout = '${timeoutSeconds}s'`);
          return client.query<RawPageRow>(statement.text, values);
        });
  const found = raw.filter((row) => row.key !== null);
  const cutAt = found.findIndex((row) => !isWhole(row));
  const whole = (cutAt < 0 ? found : found.slice(0, cutAt)).filter(isWhole);
  const { last = null, more = false } = raw[0] ?? {};
  const isCut = whole.length < found.length || whole.length === pageSize;
  return {
    rows: whole.map((row) => ({
      ...toRow(row),
      place: row.place,
      version: row.version,
      clock: row.clock,
    })),
    next: isCut ? (whole.at(-1)?.key ?? null) : more ? last : null,
  };
}

/** False for a row without a size: with it, the documents of the page would have too many bytes. */
const isWhole = (raw: RawPageRow): raw is RawPageRow & RawRow => raw.size !== null;

function statementOf(
  { statements, hasFailedOrder }: TableSession,
  wanted: readonly Status[],
  { newestFirst, isFirst }: { newestFirst: boolean; isFirst: boolean },
) {
  const { failedPage, failedPageBack, failedPageLast } = statements;
  const { runningPage, runningPageBack, runningPageLast } = statements;
  const { anyPage, anyPageBack, anyPageLast } = statements;
  // Without the index of failed jobs, each page would read all of them.
  const isFailed = areFailed(wanted) && hasFailedOrder;
  const isRunning = areRunning(wanted);
  const [forward, back, first] = isFailed
    ? [failedPage, failedPageBack, failedPageLast]
    : isRunning
      ? [runningPage, runningPageBack, runningPageLast]
      : [anyPage, anyPageBack, anyPageLast];
  return {
    statement: newestFirst ? (isFirst ? first : back) : forward,
    maxRows: isFailed || isRunning ? indexedRows : walkedRows,
  };
}

/**
 * Returns the bytes of which a document has one or the other if it contains the text: as most programs write it, and
 * with escapes for all characters beyond ASCII, as Python does. `part` says which part of the JSON text is searched:
 * a name with its quotes, the part of a longer text without.
 */
function bytesOfText(
  text: string | undefined,
  part: (json: string) => [start: number, end: number],
): [Buffer | null, Buffer | null] {
  if (text === undefined) return [null, null];
  const json = JSON.stringify(text);
  const raw = json.slice(...part(json));
  const escaped = raw.replaceAll(
    /[^ -~]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
  return [Buffer.from(raw), Buffer.from(escaped)];
}
