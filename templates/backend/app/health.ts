import { Router } from "express";
import type { Health } from "../saq/index.js";

/**
 * GET /health for load balancers: 200 when the database answers, 503 when not. A missing worker is no reason for 503,
 * because the API can still take jobs; the body tells.
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
