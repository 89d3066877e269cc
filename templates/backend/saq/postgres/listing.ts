/**
 * Lists jobs, for people to read: by an index where there is one, and never for longer than 5 seconds.
 */
import type { JobFilter } from "../broker.js";
import { isSelected, needsLook } from "../core/job-selection.js";
import type { StoredJob } from "../core/stored-job.js";
import { SaqError } from "../errors.js";
import { isCancelled } from "./connection/errors.js";
import { areFailed, areRunning, readPage } from "./job-pages.js";
import { type RawRow, toRow } from "./raw-rows.js";
import type { TableSession } from "./table-session.js";

/** Timeout of a list, s. Without an index, a rare status is searched in the whole table: 3 s for ten million jobs. */
const timeoutSeconds = 5;
type Page = Awaited<ReturnType<typeof readPage>>;

/** Maximum bytes of the documents of a list whose jobs were looked into. Later jobs come without a document. */
const maxListedBytes = 64 * 1024 * 1024;

/**
 * Returns the rows of the jobs that match the filter.
 *
 * @throws SaqError list_too_slow when it takes longer than 5 s
 */
export function listRows(session: TableSession, queueName: string, filter: JobFilter): Promise<StoredJob[]> {
  return needsLook(filter)
    ? searchRows(session, queueName, filter)
    : rowsByStatus(session, queueName, filter);
}

async function rowsByStatus(
  session: TableSession,
  queueName: string,
  { statuses, offset, limit, due }: JobFilter,
): Promise<StoredJob[]> {
  const wanted = [...new Set(statuses)];
  const { list, listRunning, listFailed } = session.statements;
  const values = [queueName, wanted, offset, limit];
  const isFailed = areFailed(wanted);
  const isRunning = areRunning(wanted);
  const { text } = isFailed ? listFailed : isRunning ? listRunning : list;
  try {
    const rows = await session.pool.transaction(async (client) => {
      await client.query(`set local statement_timeout = '${timeoutSeconds}s'`);
      return (await client.query<RawRow>(text, isFailed || isRunning ? values : [...values, due ?? null]))
        .rows;
    });
    return rows.map(toRow);
  } catch (error) {
    throw isCancelled(error) ? tooSlow(queueName, wanted, error) : error;
  }
}

/**
 * Reads pages from the highest key downwards and looks into the jobs, because no index says what is in a document. The
 * time is checked after each page, which has the same limit.
 */
async function searchRows(session: TableSession, queueName: string, filter: JobFilter): Promise<StoredJob[]> {
  const deadline = performance.now() + timeoutSeconds * 1_000;
  const found: StoredJob[] = [];
  let skipped = 0;
  let bytes = 0;
  for (let after: string | null = null; ; ) {
    const page: Page = await readListedPage(session, queueName, filter, after);
    for (const row of page.rows) {
      if (!isSelected(row, filter, row.clock) || skipped++ < filter.offset) continue;
      const { key, queue, status, scheduled, document, unreadBytes = Buffer.byteLength(document) } = row;
      bytes += Buffer.byteLength(document);
      const isShown = bytes <= maxListedBytes && row.unreadBytes === undefined;
      found.push({
        key,
        queue,
        status,
        scheduled,
        ...(isShown ? { document } : { document: "", unreadBytes }),
      });
      if (found.length >= filter.limit) return found;
    }
    if (page.next === null) return found;
    after = page.next;
    if (performance.now() > deadline) throw tooSlow(queueName, filter.statuses);
  }
}

/** @throws SaqError list_too_slow after 5 s */
async function readListedPage(
  session: TableSession,
  queueName: string,
  selection: JobFilter,
  after: string | null,
): Promise<Page> {
  try {
    return await readPage(session, queueName, { selection, after, newestFirst: true, timeoutSeconds });
  } catch (error) {
    throw isCancelled(error) ? tooSlow(queueName, selection.statuses, error) : error;
  }
}

const tooSlow = (queueName: string, statuses: JobFilter["statuses"], cause?: unknown): SaqError =>
  new SaqError(
    "list_too_slow",
    `The list of ${[...new Set(statuses)].join(", ")} jobs in queue "${queueName}" was cancelled after ` +
      `${timeoutSeconds} s. ${
        areFailed(statuses)
          ? "The jobs table may lack the index for such jobs. Run npm run saq -- tune to see what is missing; with " +
            "--yes it creates the index while the application runs"
          : "Ask for fewer statuses or a lower offset, or read all jobs with queue.iterJobs"
      }`,
    cause === undefined ? {} : { cause },
  );
