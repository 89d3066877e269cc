/** Decides whether a job that a dead worker had claimed was started, or only waited for its turn. */

import { read } from "../../core/stored-job.js";
import { livenessOf } from "../../storage/worker-ids.js";
import { isClaimedAhead } from "../claim-token.js";
import type { Row } from "../raw-rows.js";

/**
 * Returns true if the job of this row was started; false also when its document is no job.
 *
 * A claim writes the same time as `started` and `touched`. Nothing is written when a worker starts the job, because
 * that would cost one write per job. There are two exceptions: a sign of life of the job, and the start of a job that a
 * dead worker has held before (`lost` in its meta). Where nothing was written, a job that was claimed for a free slot
 * counts as started, and a job that was claimed ahead counts as not started.
 */
export function hadStarted(row: Row): boolean {
  const job = read(row);
  if (!job) return false;
  // Python writes the worker's id when it starts the job.
  if (livenessOf(job.workerId ?? "") === "row") return job.started > 0;
  if (job.touched !== job.started) return true;
  return !("lost" in job.meta) && !isClaimedAhead(row.token);
}
