/** Example endpoints below /queue: three enqueue a job, two return the state of jobs. */
import { Router } from "express";
import { z } from "zod";
import { inSeconds, type Job, type TaskQueues } from "../../saq/index.js";
import { HttpError } from "../errors.js";
import { parseBody } from "../parse-body.js";
import type { saqConfig } from "./config.js";

const maxIds = 100;
const yearSeconds = 365 * 24 * 3600;

const text = z.string("must be a text").min(1, "must not be empty");
const exampleBody = z.object({ message: text });
const emailBody = z.object({
  to: z.email("must be an email address"),
  subject: text,
  email_body: text,
});
const delayedBody = z.object({
  message: text,
  delay_seconds: z
    .number("must be a number of seconds")
    .min(0, "must not be negative")
    .max(yearSeconds, `must be at most ${yearSeconds} (a year)`),
});

export function createQueueRoutes(taskQueues: TaskQueues<typeof saqConfig>): Router {
  const queue = taskQueues.get("default");
  const router = Router();

  router.post("/example", async (req, res) => {
    const { message } = parseBody(exampleBody, req.body);
    const job = await queue.enqueue("exampleTask", { message });
    res.status(201).json({ job_id: job.id, status: "queued" });
  });

  router.post("/email", async (req, res) => {
    const { to, subject, email_body } = parseBody(emailBody, req.body);
    const job = await queue.enqueue("sendEmailTask", { to, subject, emailBody: email_body });
    res.status(201).json({ job_id: job.id, status: "queued" });
  });

  router.post("/delayed", async (req, res) => {
    const { message, delay_seconds } = parseBody(delayedBody, req.body);
    const job = await queue.enqueue("delayedTask", { message }, { scheduled: inSeconds(delay_seconds) });
    res.status(201).json({ job_id: job.id, status: "queued" });
  });

  router.get("/jobs/:id", async (req, res) => {
    const job = await queue.job(req.params.id);
    if (!job) {
      throw new HttpError(
        404,
        "There is no job with this id. It never existed, or it was deleted when its ttl was over.",
      );
    }
    res.json(describeJob(job));
  });

  router.get("/jobs", async (req, res) => {
    const ids = String(req.query.ids ?? "")
      .split(",")
      .filter((id) => id !== "");
    if (ids.length === 0 || ids.length > maxIds) {
      throw new HttpError(400, `Give 1 to ${maxIds} ids: /queue/jobs?ids=a,b,c. Got ${ids.length}.`);
    }
    const jobs = await queue.jobs(ids);
    res.json({ jobs: jobs.filter((job) => job !== null).map(describeJob) });
  });

  return router;
}

function describeJob(job: Job) {
  return {
    job_id: job.id,
    function: job.function,
    status: job.status,
    progress: job.progress,
    attempts: job.attempts,
    queued_at: isoTime(job.queued),
    scheduled_at: isoTime(job.scheduled * 1000),
    started_at: isoTime(job.started),
    completed_at: isoTime(job.completed),
    result: job.result,
    error: job.error,
  };
}

/** Converts milliseconds since the epoch to ISO 8601; 0 means "not yet" and becomes null. */
const isoTime = (ms: number): string | null => (ms === 0 ? null : new Date(ms).toISOString());
