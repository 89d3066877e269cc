import { Router } from "express";
import type { Health, PauseTarget } from "../saq/index.js";

/**
 * GET /health for load balancers: status 200 if the database is reachable, otherwise 503. If no worker is running, or
 * if a queue is paused, the status is still 200, because the API can store jobs; the body contains the number of
 * workers and what is paused.
 */
export function createHealthRoutes(readHealth: () => Promise<Health>): Router {
  const router = Router();
  router.get("/health", async (_req, res) => {
    try {
      const { workers, queues } = await readHealth();
      res.json({
        status: "ok",
        workers,
        queues: queues.map(({ name, workers, paused }) => ({ name, workers, paused: paused.map(nameOf) })),
      });
    } catch (error) {
      res.err = error as Error;
      res
        .status(503)
        .json({ status: "unavailable", status_code: 503, detail: "The database does not answer." });
    }
  });
  return router;
}

/** Anybody may read this, so it contains no key of a group and no reason. */
function nameOf({ task, group }: PauseTarget): string {
  if (task !== null) return `task ${task}`;
  return group === null ? "queue" : "a group";
}
