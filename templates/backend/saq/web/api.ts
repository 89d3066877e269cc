/**
 * The JSON API of the web UI: the routes of SAQ's API, plus a filter for job lists (`?status=&offset=&limit=`), the
 * `history` of a job, status 409 for changes that are not possible, the header X-SAQ-CSRF, and the routes of schedules.
 */
import express, { type Request, type Router } from "express";
import type { Status } from "../core/job.js";
import { SaqError } from "../errors.js";
import { parseJobFilter } from "./filter.js";
import { Lists } from "./lists.js";
import { HttpProblem, sendProblem } from "./problem.js";
import { sameOriginOnly } from "./protection.js";
import type { WebQueue } from "./queue.js";
import { createSchedulesApi } from "./schedules.js";
import { readSegment } from "./segment.js";
import { Snapshots } from "./snapshots.js";

/** The statuses that a job list contains if the request names none, as in SAQ. */
const unfinished: readonly Status[] = ["queued", "active", "aborting"];

type QueuePath = { queue: string };
type JobPath = { queue: string; key: string };

export function createApi(queues: readonly WebQueue[]): Router {
  const byName = new Map(queues.map((queue) => [queue.name, queue]));
  const api = express.Router({ caseSensitive: true });

  const queueOf = ({ params }: Request<QueuePath>): WebQueue => {
    const queue = byName.get(readSegment(params.queue));
    if (!queue) throw new HttpProblem(404, `Could not find the ${readSegment(params.queue)} queue`);
    return queue;
  };

  const snapshots = new Snapshots();
  const lists = new Lists();

  api.get("/queues", async (_req, res) => {
    res.json({ queues: await Promise.all(queues.map((queue) => snapshots.of(queue))) });
  });

  api.get("/queues/:queue", async (req: Request<QueuePath>, res) => {
    const queue = queueOf(req);
    const filter = { statuses: unfinished, ...parseJobFilter(req.url) };
    const [info, jobs] = await Promise.all([snapshots.of(queue), lists.of(queue, filter).catch(refuse)]);
    res.json({ queue: { ...info, jobs: jobs.map((job) => job.toDocument()) } });
  });

  api.get("/queues/:queue/jobs/:key", async (req: Request<JobPath>, res) => {
    const job = await queueOf(req).job(readSegment(req.params.key));
    if (!job) throw unknownJob(req);
    const texts = { kwargs: JSON.stringify(job.kwargs), result: JSON.stringify(job.result) };
    res.json({ job: { ...job.toDocument(), ...texts, history: job.history } });
  });

  api.post("/queues/:queue/jobs/:key/retry", sameOriginOnly, async (req: Request<JobPath>, res) => {
    const key = readSegment(req.params.key);
    const queue = queueOf(req);
    const answer = await queue
      .retry(key, { error: "retried from ui", resetAttempts: true })
      .catch(refuse)
      .finally(() => snapshots.forget(queue));
    switch (answer) {
      case "queued":
        res.status(202).json({});
        return;
      case "not_finished":
        throw new HttpProblem(
          409,
          `Job ${key} is not finished; only a complete, failed or aborted job can be retried`,
        );
      case "unreadable":
        throw new HttpProblem(
          409,
          `The stored document of job ${key} cannot be read, so it cannot be retried`,
        );
      case null:
        throw unknownJob(req);
      default:
        throw new Error(`Unknown answer to a retry: ${answer satisfies never}`);
    }
  });

  api.post("/queues/:queue/jobs/:key/abort", sameOriginOnly, async (req: Request<JobPath>, res) => {
    const key = readSegment(req.params.key);
    const queue = queueOf(req);
    const answer = await queue
      .abort(key, "aborted from ui")
      .catch(refuse)
      .finally(() => snapshots.forget(queue));
    switch (answer) {
      case "aborted":
      case "aborting":
        res.status(202).json({});
        return;
      case "not_active":
        throw new HttpProblem(409, `Job ${key} is finished; only a job that waits or runs can be aborted`);
      case null:
        throw unknownJob(req);
      default:
        throw new Error(`Unknown answer to an abort: ${answer satisfies never}`);
    }
  });

  api.use("/queues/:queue/schedules", createSchedulesApi(queueOf));

  api.use((_req, res) => sendProblem(res, 404, "Not Found"));
  return api;
}

/**
 * Turns `job_held` (another transaction has locked the row) and `list_too_slow` into a 409 with the error's message,
 * which is written for the user. All other errors stay as they are.
 */
const refuse = (error: unknown): never => {
  const isConflict = error instanceof SaqError && /^(job_held|list_too_slow)$/.test(error.code);
  throw isConflict ? new HttpProblem(409, error.message) : error;
};

const unknownJob = ({ params }: Request<JobPath>) =>
  new HttpProblem(404, `Could not find job ID ${readSegment(params.key)}`);
