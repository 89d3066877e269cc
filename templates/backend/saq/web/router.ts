/** The web UI as one express router: JSON API, health, static files, page. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import express, { type RequestHandler, type Router } from "express";
import { ConfigError } from "../errors.js";
import { describe, type Logger } from "../logger.js";
import { createApi } from "./api.js";
import { normaliseRoot, renderPage } from "./page.js";
import { answerProblem, problemHandler } from "./problem.js";
import { loopbackOnly, securityHeaders } from "./protection.js";
import type { WebQueue } from "./queue.js";

export interface WebRouterOptions {
  queues: readonly WebQueue[];
  /** Where browsers find the UI, for example `/saq`. Every link starts with it. */
  path: string;
  /**
   * They run before everything else, health included, and decide who may come in. Without guards only requests of this
   * machine are answered, and none that came through a proxy.
   */
  guards?: readonly RequestHandler[];
  logger: Logger;
}

/**
 * Mount it at `path`: `app.use("/saq", createWebRouter({ queues, path: "/saq", logger }))`. Nothing is kept outside
 * of the router, so that two of them never share a queue (D-85).
 *
 * @throws ConfigError when the UI's static files do not lie beside this module
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
  // no-cache: kept, but asked for every time, so that an updated engine never meets an old script.
  router.use(
    "/static",
    express.static(staticFolder, { index: false, redirect: false, setHeaders: revalidated }),
  );
  router.use("/static", (_req, res) => answerProblem(res, 404, "Not Found"));
  router.get(["/", "/queues/:queue", "/queues/:queue/jobs/:key"], sendPage(200));
  router.get("/{*path}", sendPage(404));
  router.use((_req, res) => answerProblem(res, 404, "Not Found"));
  router.use(problemHandler(logger));
  return router;
}

const revalidated = (res: { setHeader(name: string, value: string): unknown }) =>
  void res.setHeader("Cache-Control", "no-cache");

/** 200 when there is a queue and all answer (S-65). */
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
    `The web UI's files are not in ${folder}. The compiler carries only TypeScript: run "npm run build", which copies them too.`,
  );
}
