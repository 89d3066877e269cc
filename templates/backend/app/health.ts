import { Router } from "express";
import type { Health } from "../saq/index.js";

/**
 * GET /health for load balancers: status 200 if the database is reachable, otherwise 503. If no worker is running, the
 * status is still 200, because the API can store jobs; the body contains the number of workers.
 */
export function createHealthRoutes(readHealth: () => Promise<Health>): Router {
  const router = Router();
  router.get("/health", async (_req, res) => {
    try {
      const { workers, queues } = await readHealth();
      res.json({ status: "ok", workers, queues: queues.map(({ name, workers }) => ({ name, workers })) });
    } catch (error) {
      res.err = error as Error;
      res
        .status(503)
        .json({ status: "unavailable", status_code: 503, detail: "The database does not answer." });
    }
  });
  return router;
}
