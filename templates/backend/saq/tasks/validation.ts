/**
 * Validates payloads and results with the schemas of their task, through Standard Schema: the common interface of zod,
 * valibot, arktype and others.
 */
import { InvalidPayloadError, InvalidResultError, type Issue } from "../errors.js";

/** A schema of any validation library that implements Standard Schema. */
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

/** Checks only the member `~standard`, because arktype's schemas are functions. */
export const isStandardSchema = (value: unknown): value is StandardSchema =>
  typeof (value as Partial<StandardSchema> | null | undefined)?.["~standard"]?.validate === "function";

/**
 * Returns the output of a task's `input` schema for a stored payload; a promise only if the schema is asynchronous.
 *
 * @throws InvalidPayloadError that names each invalid field
 */
export const validatePayload = (name: string, schema: StandardSchema, payload: unknown): unknown =>
  validate(schema, payload, (issues) => new InvalidPayloadError(name, issues));

/**
 * Returns the output of a task's `output` schema for what the task returned; a promise only if the schema is
 * asynchronous.
 *
 * @throws InvalidResultError that names each invalid field
 */
export const validateResult = (name: string, schema: StandardSchema, result: unknown): unknown =>
  validate(schema, result, (issues) => new InvalidResultError(name, issues));

function validate(
  schema: StandardSchema,
  value: unknown,
  toError: (issues: readonly Issue[]) => Error,
): unknown {
  const outputOf = (result: SchemaResult<unknown>) => {
    if (!result.issues) return result.value;
    throw toError(
      result.issues.map(({ message, path = [] }) => ({
        message,
        path: path.map((part) => String(typeof part === "object" ? part.key : part)).join("."),
      })),
    );
  };
  const result = schema["~standard"].validate(value);
  return result instanceof Promise ? result.then(outputOf) : outputOf(result);
}
