import { z } from "zod";
import { HttpError, invalidFields } from "./errors.js";

/**
 * Checks a request body and returns it as the schema's output type.
 *
 * @throws HttpError 400 that names every wrong field, or says that the body is not a JSON object
 */
export function parseBody<S extends z.ZodType>(schema: S, body: unknown): z.output<S> {
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw new HttpError(
      400,
      "The request needs a JSON object as its body, sent as Content-Type: application/json.",
    );
  }
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw invalidFields(
    parsed.error.issues.map(({ path, message }) => ({ field: z.core.toDotPath(path), message })),
  );
}
