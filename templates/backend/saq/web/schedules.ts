/** The JSON API's routes for recurring tasks: list them, run one now, pause one, resume one. */
import express, { type Request, type RequestHandler, type Router } from "express";
import { SaqError } from "../errors.js";
import { HttpProblem } from "./problem.js";
import { sameOriginOnly } from "./protection.js";
import type { WebQueue } from "./queue.js";
import { readSegment } from "./segment.js";

type QueuePath = { queue: string };
type SchedulePath = { queue: string; name: string };

/** Returns a router to mount below a queue's path. `queueOf` returns the queue, or throws a 404. */
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

/**
 * Turns errors that the user can act on into a 404 or 409 with the error's message: an unknown schedule, an action that
 * the configuration or the database role does not allow, and a job that another transaction has locked.
 */
const refuse = (error: unknown): never => {
  const code = error instanceof SaqError ? error.code : null;
  if (code === "unknown_schedule") throw new HttpProblem(404, (error as SaqError).message);
  if (code === "config" || code === "job_held") throw new HttpProblem(409, (error as SaqError).message);
  throw error;
};
