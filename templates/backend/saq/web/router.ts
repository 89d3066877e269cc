/** The web UI as one express router: JSON API, health check, static files and the page. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import express, { type RequestHandler, type Router } from "express";
import { ConfigError } from "../errors.js";
import { describe, type Logger } from "../logger.js";
import { createApi } from "./api.js";
import { normaliseRoot, renderPage } from "./page.js";
import { problemHandler, sendProblem } from "./problem.js";
import { loopbackOnly, securityHeaders } from "./protection.js";
import type { WebQueue } from "./queue.js";

export interface WebRouterOptions {
  queues: readonly WebQueue[];
  /** Path at which browsers find the UI, for example `/saq`. Every link starts with it. */
  path: string;
  /**
   * Middleware that decides who has access. It runs before everything else, including the health check. Without guards,
   * only requests from this machine are allowed, and none that came through a proxy.
   */
  guards?: readonly RequestHandler[];
  logger: Logger;
}

/**
 * Returns the router of the web UI, to be mounted at `path`. All its state is inside the router, so two routers never
 * share a queue.
 *
 * @throws ConfigError if the UI's static files are not in the folder of this module
 *
 * @example
 * app.use("/saq", createWebRouter({ queues, path: "/saq", logger }));
 */
export function createWebRouter({ queues, path, guards = [], logger }: WebRouterOptions): Router {
  const staticFolder = findStaticFolder();
  const page = renderPage(normaliseRoot(path));
  const sendPage = (status: number): RequestHandler => {
    return (_req, res) => void res.status(status).type("html").send(page);
  };

  const router = express.Router({ caseSensitive: true });
  router.use(securityHeaders);
  for (const guard of guards.length > 0 ? guards : [loopbackOnly]) router.use(guard);
  router.use("/api", createApi(queues));
  router.get("/health", health(queues, logger));
  // no-cache: the browser keeps the files but revalidates them each time, so an updated engine never runs an old
  // script.
  router.use(
    "/static",
    express.static(staticFolder, { index: false, redirect: false, setHeaders: revalidated }),
  );
  router.use("/static", (_req, res) => sendProblem(res, 404, "Not Found"));
  router.get(["/", "/queues/:queue", "/queues/:queue/jobs/:key"], sendPage(200));
  router.get("/{*path}", sendPage(404));
  router.use((_req, res) => sendProblem(res, 404, "Not Found"));
  router.use(problemHandler(logger));
  return router;
}

const revalidated = (res: { setHeader(name: string, value: string): unknown }) =>
  void res.setHeader("Cache-Control", "no-cache");

/**
 * Responds with 200 if there is at least one queue and the database of every queue is reachable, otherwise with 500.
 */
function health(queues: readonly WebQueue[], logger: Logger): RequestHandler {
  return async (_req, res) => {
    try {
      if (queues.length === 0) throw new ConfigError("No queue is configured");
      await Promise.all(queues.map((queue) => queue.workers()));
      res.type("text").send("OK");
    } catch (error) {
      logger.warn(describe(error), "health check failed");
      res.status(500).type("text").send("Service Unavailable");
    }
  };
}

function findStaticFolder(): string {
  const folder = fileURLToPath(new URL("./static/", import.meta.url));
  if (existsSync(folder)) return folder;
  throw new ConfigError(
    `The web UI's files are not in ${folder}. The compiler handles only TypeScript; ` +
      'run "npm run build", which also copies these files.',
  );
}
