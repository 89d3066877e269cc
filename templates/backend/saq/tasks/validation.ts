/**
 * Payloads and results against their task's schemas, by Standard Schema: the one interface of zod, valibot, arktype and
 * others.
 */
import { InvalidPayloadError, InvalidResultError, type Issue } from "../errors.js";

/** Any validation library that speaks Standard Schema. */
export interface StandardSchema<Input = unknown, Output = Input> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => SchemaResult<Output> | Promise<SchemaResult<Output>>;
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
  };
}
type SchemaResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly SchemaIssue[] };
interface SchemaIssue {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}
export type InputOf<S> = S extends StandardSchema<infer Input, unknown> ? Input : never;
export type OutputOf<S> = S extends StandardSchema<unknown, infer Output> ? Output : never;

/** By its member alone: arktype's schemas are functions. */
export const isStandardSchema = (value: unknown): value is StandardSchema =>
  typeof (value as Partial<StandardSchema> | null | undefined)?.["~standard"]?.validate === "function";

/**
 * The output of a task's `input` for a stored payload; a promise only where the schema is asynchronous.
 *
 * @throws InvalidPayloadError naming each bad field
 */
export const validatePayload = (name: string, schema: StandardSchema, payload: unknown): unknown =>
  validate(schema, payload, (issues) => new InvalidPayloadError(name, issues));

/**
 * The output of a task's `output` for what the task returned; a promise only where the schema is asynchronous.
 *
 * @throws InvalidResultError naming each bad field
 */
export const validateResult = (name: string, schema: StandardSchema, result: unknown): unknown =>
  validate(schema, result, (issues) => new InvalidResultError(name, issues));

function validate(
  schema: StandardSchema,
  value: unknown,
  refusal: (issues: readonly Issue[]) => Error,
): unknown {
  const settle = (result: SchemaResult<unknown>) => {
    if (!result.issues) return result.value;
    throw refusal(
      result.issues.map(({ message, path = [] }) => ({
        message,
        path: path.map((part) => String(typeof part === "object" ? part.key : part)).join("."),
      })),
    );
  };
  const result = schema["~standard"].validate(value);
  return result instanceof Promise ? result.then(settle) : settle(result);
}
