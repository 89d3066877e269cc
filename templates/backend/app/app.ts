/** Builds the API. It gets its dependencies as arguments and does not listen, so tests can call it without a port. */
import express, {
  type Express,
  type Request,
  type RequestHandler,
  type Response,
  type Router,
} from "express";
import helmet from "helmet";
import type { Logger } from "pino";
import { pinoHttp } from "pino-http";
import type { Saq } from "../saq/index.js";
import { errorHandler, notFound } from "./error-handler.js";
import { createHealthRoutes } from "./health.js";

export interface AppDependencies {
  saq: Pick<Saq, "webPath" | "middleware" | "router" | "health">;
  queueRoutes: Router;
  logger: Logger;
}

export function createApp({ saq, queueRoutes, logger }: AppDependencies): Express {
  const app = express();
  app.use(requestLog(logger));
  app.use(helmet());
  app.use(express.json({ limit: "100kb" }));
  app.use(saq.middleware());

  app.use(createHealthRoutes(() => saq.health()));
  app.use("/queue", queueRoutes);
  app.use(saq.webPath, saq.router());

  app.use(notFound);
  app.use(errorHandler);
  return app;
}

/**
 * Logs one line per request. Successful reads have the level `debug`, because the front end and the web UI poll and
 * would fill the log.
 */
function requestLog(logger: Logger): RequestHandler {
  return pinoHttp<Request, Response>({
    logger,
    quietReqLogger: true,
    // Without the response headers: they are the same each time, and would be more than half of the line.
    serializers: { res: ({ statusCode }: Response) => ({ statusCode }) },
    customLogLevel: (req, res) => {
      if (res.err || res.statusCode >= 500) return "error";
      if (res.statusCode >= 400 || !res.writableFinished) return "warn";
      return req.method === "GET" || req.method === "HEAD" ? "debug" : "info";
    },
    customSuccessMessage: (req, res, ms) =>
      // If the client closed the connection, it got no response. The status code alone would look like a success.
      res.writableFinished
        ? `${req.method} ${req.originalUrl} ${res.statusCode} (${ms} ms)`
        : `${req.method} ${req.originalUrl} aborted by the client (${ms} ms)`,
    customErrorMessage: (req, res, { message }) =>
      `${req.method} ${req.originalUrl} ${res.statusCode}${res.err ? `: ${message}` : ""}`,
    // A 503 means that the database is unreachable. The stack does not help then, and every poll would print it.
    customErrorObject: (_req, res, error, line) => ({
      ...line,
      err: res.err && res.statusCode !== 503 ? error : undefined,
    }),
  });
}
