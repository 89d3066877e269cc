/** Every error that leaves the API is `{ status_code, detail }`, with `errors` where fields of the body are wrong. */
import type { ErrorRequestHandler, RequestHandler } from "express";
import { InvalidJobError, InvalidPayloadError } from "../saq/index.js";
import { HttpError, invalidFields, isDatabaseAway } from "./errors.js";

/** The last route: nothing before it has answered. */
export const notFound: RequestHandler = (req) => {
  throw new HttpError(404, `There is no ${req.method} ${req.path}.`);
};

/** The last middleware. Express knows it by its four parameters. */
export const errorHandler: ErrorRequestHandler = (error, _req, res, next) => {
  const answer = toHttpError(error);
  // The line that is logged for this request carries it (app.ts).
  if (answer.status >= 500) res.err = error;
  // The answer has begun: all that is left is to break the connection, which Express does.
  if (res.headersSent) return next(error);
  const { status, message, errors } = answer;
  res.status(status).json({ status_code: status, detail: message, ...(errors && { errors }) });
};

/** What body-parser found wrong, in its word and in ours. */
const bodyErrors: Record<string, string> = {
  "entity.parse.failed": "The request body is not valid JSON.",
  "entity.too.large": "The request body is too large.",
  "encoding.unsupported": "The request body's Content-Encoding is not supported.",
  "charset.unsupported": "The request body's character set is not supported; send UTF-8.",
};

function toHttpError(error: unknown): HttpError {
  if (error instanceof HttpError) return error;
  if (error instanceof InvalidPayloadError) {
    return invalidFields(error.issues.map(({ path, message }) => ({ field: path, message })));
  }
  if (error instanceof InvalidJobError) return new HttpError(400, error.message);
  if (isDatabaseAway(error))
    return new HttpError(503, "The database does not answer. Try again in a moment.");
  const { status, type } = Object(error) as { status?: unknown; type?: unknown };
  if (typeof status === "number" && status >= 400 && status < 500) {
    return new HttpError(status, bodyErrors[String(type)] ?? (error as Error).message);
  }
  // The reason is in the log; it may hold what callers must not see.
  return new HttpError(500, "The server failed to answer this request.");
}
