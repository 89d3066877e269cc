/** The API's error responses: always the JSON object `{ status_code, detail }`, never HTML, never a stack trace. */
import type { ErrorRequestHandler, Response } from "express";
import { SaqError } from "../errors.js";
import { describe, type Logger } from "../logger.js";

export class HttpProblem extends Error {
  readonly status: number;

  constructor(status: number, detail: string) {
    super(detail);
    this.status = status;
  }
}

export function sendProblem(res: Response, status: number, detail: string): void {
  res.status(status).json({ status_code: status, detail });
}

/** A response to a client error contains the reason. The reason of a server error goes only to the log. */
export function problemHandler(logger: Logger): ErrorRequestHandler {
  return (error: unknown, req, res, next) => {
    if (res.headersSent) return next(error);
    const status = clientErrorStatus(error);
    if (status !== null) return sendProblem(res, status, (error as Error).message);
    if (isDatabaseUnavailable(error)) {
      // The level is debug, because the outage is already logged once elsewhere. A line for each poll of each open page
      // would hide that line.
      logger.debug({ ...describe(error), method: req.method, url: req.originalUrl }, "web UI request failed");
      return sendProblem(res, 503, "The database does not answer.");
    }
    logger.error({ err: error, method: req.method, url: req.originalUrl }, "web UI request failed");
    sendProblem(res, 500, "Internal Server Error");
  };
}

const isDatabaseUnavailable = (error: unknown): boolean =>
  error instanceof SaqError && (error.code === "database_unavailable" || error.code === "queue_closed");

/** Returns the status of a 4xx error from this router, from express (a malformed `%` in the path) or from a guard. */
function clientErrorStatus(error: unknown): number | null {
  if (!(error instanceof Error) || !("status" in error)) return null;
  const { status } = error;
  return typeof status === "number" && status >= 400 && status < 500 ? status : null;
}
