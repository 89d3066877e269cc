/** Turns every error into the response `{ status_code, detail }`, plus `errors` if fields of the body are wrong. */
import type { ErrorRequestHandler, RequestHandler } from "express";
import { InvalidJobError, InvalidPayloadError } from "../saq/index.js";
import { HttpError, invalidFields, isDatabaseUnavailable } from "./errors.js";

/** Responds with 404. It comes after all routes, so a request reaches it only if no route has matched. */
export const notFound: RequestHandler = (req) => {
  throw new HttpError(404, `There is no ${req.method} ${req.path}.`);
};

/** Sends the error response. It must be the last middleware; Express recognises it by its four parameters. */
export const errorHandler: ErrorRequestHandler = (error, _req, res, next) => {
  const httpError = toHttpError(error);
  // The request log in app.ts prints `res.err` in the line of this request.
  if (httpError.status >= 500) res.err = error;
  // The response has already started, so it can only be cut off: Express closes the connection.
  if (res.headersSent) return next(error);
  const { status, message, errors } = httpError;
  res.status(status).json({ status_code: status, detail: message, ...(errors && { errors }) });
};

/** Error types of body-parser, and the message that the client gets for each. */
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
  if (isDatabaseUnavailable(error))
    return new HttpError(503, "The database does not answer. Try again in a moment.");
  const { status, type } = Object(error) as { status?: unknown; type?: unknown };
  if (typeof status === "number" && status >= 400 && status < 500) {
    return new HttpError(status, bodyErrors[String(type)] ?? (error as Error).message);
  }
  // The client gets no reason, because it may contain secrets. The log has it.
  return new HttpError(500, "The server could not process this request.");
}
