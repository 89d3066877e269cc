/** Calls the backend's endpoints (backend/app/queue/routes.ts and GET /health). All times are ISO 8601 text. */

export type JobStatus =
  | "new"
  | "deferred"
  | "queued"
  | "active"
  | "aborting"
  | "aborted"
  | "failed"
  | "complete";

export interface Job {
  job_id: string;
  function: string;
  status: JobStatus;
  /** From 0 to 1; it stays 0 if the task reports no progress. */
  progress: number;
  attempts: number;
  queued_at: string | null;
  scheduled_at: string | null;
  started_at: string | null;
  completed_at: string | null;
  result: unknown;
  error: string | null;
}

export interface FieldError {
  field: string;
  message: string;
}

/** A request to the API failed. `fields` lists the wrong fields of the body, if they are the reason. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly fields: FieldError[];

  constructor(message: string, fields: FieldError[] = []) {
    super(message);
    this.fields = fields;
  }
}

// Without a timeout, a request that hangs (because the API waits for its database) would stop the polling forever.
const REQUEST_TIMEOUT_MS = 10_000;
const UNREACHABLE = "The API does not answer.";

/**
 * Posts a body to one of the /queue endpoints and returns the new job's id.
 *
 * @throws ApiError
 */
export async function enqueue(path: string, body: Record<string, unknown>): Promise<string> {
  const { job_id } = await request<{ job_id: string }>(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return job_id;
}

/**
 * Returns the jobs with these ids (at most 100). Ids that the queue does not know are left out.
 *
 * @throws ApiError
 */
export async function fetchJobs(ids: string[], signal: AbortSignal): Promise<Job[]> {
  const list = ids.map(encodeURIComponent).join(",");
  const { jobs } = await request<{ jobs: Job[] }>(`/queue/jobs?ids=${list}`, { signal });
  return jobs;
}

/**
 * Returns the number of live workers.
 *
 * @throws ApiError
 */
export async function fetchWorkerCount(signal: AbortSignal): Promise<number> {
  const { workers } = await request<{ workers: number }>("/health", { signal });
  return workers;
}

async function request<T>(path: string, init: RequestInit): Promise<T> {
  const timeout = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
  const signal = init.signal ? AbortSignal.any([init.signal, timeout]) : timeout;
  let response: Response;
  let text: string;
  try {
    response = await fetch(path, { ...init, signal });
    text = await response.text();
  } catch {
    throw new ApiError(UNREACHABLE);
  }
  const body = parseJson(text);
  if (response.ok && body !== undefined) return body as T;
  if (isErrorBody(body)) throw new ApiError(body.detail, body.errors);
  // Vite's proxy responds with 502 and an empty body if nothing listens at the API's address.
  throw new ApiError(
    response.status === 502 ? UNREACHABLE : `The API returned status ${response.status} without JSON.`,
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isErrorBody(body: unknown): body is { detail: string; errors?: FieldError[] } {
  return typeof body === "object" && body !== null && "detail" in body && typeof body.detail === "string";
}
