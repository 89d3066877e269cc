/**
 * Lists jobs by their status, for people to read: by an index where there is one, and never for longer than 5 seconds.
 */
import type pg from "pg";
import type { JobFilter } from "../broker.js";
import type { Status } from "../core/job.js";
import { SaqError } from "../errors.js";
import { isCancelled } from "./connection/errors.js";
import type { TableSession } from "./table-session.js";

/** Timeout of a list, s. Without an index, a rare status is searched in the whole table: 3 s for ten million jobs. */
const timeoutSeconds = 5;

const runningStatuses: readonly Status[] = ["active", "aborting"];
const failedStatuses: readonly Status[] = ["failed", "aborted"];

/**
 * Returns the rows of the jobs that match the filter.
 *
 * @throws SaqError list_too_slow when the statement takes longer than 5 s
 */
export async function listRows<Row extends pg.QueryResultRow>(
  session: TableSession,
  queueName: string,
  { statuses, offset, limit, due }: JobFilter,
): Promise<Row[]> {
  const wanted = [...new Set(statuses)];
  const { list, listRunning, listFailed } = session.statements;
  const values = [queueName, wanted, offset, limit];
  const isFailed = wanted.every((status) => failedStatuses.includes(status));
  const isRunning = wanted.every((status) => runningStatuses.includes(status));
  const { text } = isFailed ? listFailed : isRunning ? listRunning : list;
  try {
    return await session.pool.transaction(async (client) => {
      await client.query(`set local statement_timeout = '${timeoutSeconds}s'`);
      return (await client.query<Row>(text, isFailed || isRunning ? values : [...values, due ?? null])).rows;
    });
  } catch (error) {
    if (!isCancelled(error)) throw error;
    throw new SaqError(
      "list_too_slow",
      `The list of ${wanted.join(", ")} jobs in queue "${queueName}" was cancelled after ${timeoutSeconds} s. ${
        isFailed
          ? "The jobs table may lack the index for such jobs. Run npm run saq -- tune to see what is missing; with " +
            "--yes it creates the index while the application runs"
          : "Ask for fewer statuses or a lower offset, or read all jobs with queue.iterJobs"
      }`,
      { cause: error },
    );
  }
}
