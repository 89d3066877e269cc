/** Recurring tasks in the JSON API: what there is, run now, pause, resume. */
import express, { type Request, type RequestHandler, type Router } from "express";
import { SaqError } from "../errors.js";
import { HttpProblem } from "./problem.js";
import { sameOriginOnly } from "./protection.js";
import type { WebQueue } from "./queue.js";
import { readSegment } from "./segment.js";

type QueuePath = { queue: string };
type SchedulePath = { queue: string; name: string };

/** Mounted below a queue's path; `queueOf` finds the queue or answers 404. */
export function createSchedulesApi(queueOf: (req: Request<QueuePath>) => WebQueue): Router {
  const api = express.Router({ caseSensitive: true, mergeParams: true });
  const change = (
    act: (schedules: WebQueue["schedules"], name: string) => Promise<unknown>,
  ): RequestHandler<SchedulePath> => {
    return async (req, res) => {
      const answer = await act(queueOf(req).schedules, readSegment(req.params.name)).catch(refuse);
      res.status(202).json(answer ?? {});
    };
  };

  api.get("/", async (req: Request<QueuePath>, res) => {
    res.json({ schedules: await queueOf(req).schedules.list() });
  });
  api.post(
    "/:name/run",
    sameOriginOnly,
    change(async (schedules, name) => ({ job_id: (await schedules.run(name)).key })),
  );
  api.post(
    "/:name/pause",
    sameOriginOnly,
    change((schedules, name) => schedules.pause(name)),
  );
  api.post(
    "/:name/resume",
    sameOriginOnly,
    change((schedules, name) => schedules.resume(name)),
  );
  return api;
}

/** What the configuration or the database role rules out is a conflict, and its words are for the user. */
const refuse = (error: unknown): never => {
  const code = error instanceof SaqError ? error.code : null;
  if (code === "unknown_schedule") throw new HttpProblem(404, (error as SaqError).message);
  if (code === "config" || code === "job_held") throw new HttpProblem(409, (error as SaqError).message);
  throw error;
};
