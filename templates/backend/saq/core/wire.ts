/**
 * Job <-> SAQ JSON document. There are two ways to work with a document:
 *
 * - `decodeJob` returns the fields, to run or show a job. It accepts what Python may write and JSON does not have (NaN,
 *   Infinity), and reads it as null.
 * - `editDocument` changes some top-level members and copies the text of all others unchanged. Integers beyond 2^53,
 *   NaN, escaped NULs and lone surrogates therefore stay as they are. It changes rows one by one. Statements that claim
 *   or settle many jobs change only the end of documents that our own enqueue wrote (postgres/sql/document-suffix.ts).
 *   They change any other document in SQL, through jsonb: members come out in jsonb's order, and numbers keep every
 *   digit of their value. Documents that jsonb cannot hold (NaN, an escaped NUL, a lone surrogate) are changed by
 *   `editDocument`.
 */
import { PoisonDocumentError } from "../errors.js";
import { type JobFields, jobDefaults, type Status } from "./job.js";

/**
 * Wire name of each field. The order is Python's, except for the members that a claim looks for at the end of a
 * document: see `freshDue` in postgres/sql/document-suffix.ts.
 */
export const wireNames = {
  function: "function",
  kwargs: "kwargs",
  queueName: "queue",
  key: "key",
  timeout: "timeout",
  heartbeat: "heartbeat",
  retries: "retries",
  ttl: "ttl",
  retryDelay: "retry_delay",
  retryBackoff: "retry_backoff",
  progress: "progress",
  attempts: "attempts",
  completed: "completed",
  queued: "queued",
  started: "started",
  touched: "touched",
  result: "result",
  error: "error",
  priority: "priority",
  groupKey: "group_key",
  meta: "meta",
  workerId: "worker_id",
  scheduled: "scheduled",
  status: "status",
} as const satisfies Record<keyof JobFields, string>;

export type WireName = (typeof wireNames)[keyof JobFields];

const fieldNames = Object.keys(wireNames) as (keyof JobFields)[];
const defaults: Partial<Record<keyof JobFields, unknown>> = jobDefaults;

/** For these fields null is a value of its own; for all others null means that the member is missing. */
const nullable = new Set<keyof JobFields>(["timeout", "kwargs", "result", "error", "groupKey", "workerId"]);

/** Returns the document of a job, without the fields that equal their default. */
export function encodeJob(job: JobFields): string {
  // Member by member in the order of `wireNames`: a loop over the names is slower (1.2 -> 0.8 us per job), and so is
  // one object with all members, most of them undefined (2.2 -> 1.8 us for a job that a process stores early in its
  // life).
  const document: Partial<Record<WireName, unknown>> = {
    function: job.function ?? undefined,
    kwargs: job.kwargs ?? undefined,
    queue: job.queueName ?? undefined,
    key: job.key ?? undefined,
  };
  if (job.timeout !== jobDefaults.timeout) document.timeout = job.timeout;
  if (differsFrom(jobDefaults.heartbeat, job.heartbeat)) document.heartbeat = job.heartbeat;
  if (differsFrom(jobDefaults.retries, job.retries)) document.retries = job.retries;
  if (differsFrom(jobDefaults.ttl, job.ttl)) document.ttl = job.ttl;
  if (differsFrom(jobDefaults.retryDelay, job.retryDelay)) document.retry_delay = job.retryDelay;
  if (job.retryBackoff) document.retry_backoff = job.retryBackoff;
  if (differsFrom(jobDefaults.progress, job.progress)) document.progress = job.progress;
  if (differsFrom(jobDefaults.attempts, job.attempts)) document.attempts = job.attempts;
  if (differsFrom(jobDefaults.completed, job.completed)) document.completed = job.completed;
  if (differsFrom(jobDefaults.queued, job.queued)) document.queued = job.queued;
  if (differsFrom(jobDefaults.started, job.started)) document.started = job.started;
  if (differsFrom(jobDefaults.touched, job.touched)) document.touched = job.touched;
  if (differsFrom(jobDefaults.result, job.result)) document.result = job.result;
  if (differsFrom(jobDefaults.error, job.error)) document.error = job.error;
  if (differsFrom(jobDefaults.priority, job.priority)) document.priority = job.priority;
  if (differsFrom(jobDefaults.groupKey, job.groupKey)) document.group_key = job.groupKey;
  if (Object.keys(job.meta).length > 0) document.meta = job.meta;
  if (differsFrom(jobDefaults.workerId, job.workerId)) document.worker_id = job.workerId;
  if (differsFrom(jobDefaults.scheduled, job.scheduled)) document.scheduled = job.scheduled;
  if (differsFrom(jobDefaults.status, job.status)) document.status = job.status;
  return JSON.stringify(document);
}

/** True if the value is not the default. Null means that the member is missing, which is read as the default. */
const differsFrom = (defaultValue: unknown, value: unknown): boolean =>
  value !== defaultValue && value !== null && value !== undefined;

function isDefault(field: keyof JobFields, value: unknown): boolean {
  if (value === undefined) return true;
  if (value === null) return defaults[field] === null || !nullable.has(field);
  if (field === "retryBackoff") return value === false || value === 0;
  return value === defaults[field];
}

/**
 * The member of a patch that changes single members of `meta`: each of its members is set in `meta`, null removes one,
 * and all other members of `meta` keep their text. If the engine wrote its counts together with the rest of the user's
 * `meta`, it would round the user's numbers.
 */
const metaPatchName = "meta+";

/** Changes of single members of a job's `meta`: a value sets the member, null removes it. */
export type MetaPatch = Readonly<Record<string, string | number | boolean | readonly object[] | null>>;

/**
 * Returns the wire members of a change: fields that are `undefined` or equal their default are removed, the others are
 * JSON text. `metaPatch` changes the stored `meta`, after a `meta` of the change.
 */
export function encodeChange(
  change: Partial<JobFields>,
  metaPatch: MetaPatch = {},
): { patch: string; removed: WireName[] } {
  const set: Record<string, unknown> = {};
  const removed: WireName[] = [];
  for (const field of fieldNames) {
    if (!(field in change)) continue;
    const value = change[field];
    const isEmpty = field === "meta" ? !value || Object.keys(value).length === 0 : isDefault(field, value);
    if (isEmpty) removed.push(wireNames[field]);
    else set[wireNames[field]] = value;
  }
  if (Object.keys(metaPatch).length > 0) set[metaPatchName] = metaPatch;
  return { patch: JSON.stringify(set), removed };
}

/** Returns one patch with the members of both, as `encodeChange` returns them. They must not set the same member. */
export const mergePatches = (one: string, two: string): string =>
  two === "{}" ? one : one === "{}" ? two : `${one.slice(0, -1)},${two.slice(1)}`;

/** Returns the fields after a change of a job with this `meta`: the inverse of `encodeChange`. */
export function fieldsOfChange(
  { meta }: Pick<JobFields, "meta">,
  patch: string,
  removed: readonly string[],
): Partial<JobFields> {
  const members = JSON.parse(patch) as Record<string, unknown>;
  const fields: Record<string, unknown> = {};
  const metaPatch = asObject(members[metaPatchName]);
  if (metaPatch) {
    const merged = Object.entries({ ...(asObject(members.meta) ?? meta), ...metaPatch });
    members.meta = Object.fromEntries(
      merged.filter(([name, value]) => !(name in metaPatch && value === null)),
    );
  }
  for (const field of fieldNames) {
    const name = wireNames[field];
    if (name in members) fields[field] = members[name];
    else if (removed.includes(name)) fields[field] = field === "meta" ? {} : defaults[field];
  }
  return fields;
}

/**
 * Reads a document. The status of the column replaces the document's. Calls `onInvalidNumber` if the document
 * contained NaN or an infinity, which are read as null.
 *
 * @throws PoisonDocumentError if it is not a job of this queue
 */
export function decodeJob(
  text: string,
  queueName: string,
  status: Status,
  onInvalidNumber?: () => void,
): JobFields {
  const document = parseDocument(text, onInvalidNumber);
  const { function: name, key, queue, timeout, retry_backoff: backoff, group_key: group } = document;
  if (typeof name !== "string" || typeof key !== "string") {
    throw new PoisonDocumentError("The stored document has no function or key, so it is not a SAQ job");
  }
  if (queue !== queueName) {
    throw new PoisonDocumentError(
      `The stored document belongs to queue ${JSON.stringify(queue)}, not "${queueName}"`,
    );
  }
  return {
    function: name,
    kwargs: asObject(document.kwargs),
    queueName,
    key,
    timeout: timeout === null ? null : asNumber(timeout, jobDefaults.timeout),
    heartbeat: asNumber(document.heartbeat, 0),
    retries: asNumber(document.retries, jobDefaults.retries),
    ttl: asNumber(document.ttl, jobDefaults.ttl),
    retryDelay: asNumber(document.retry_delay, 0),
    retryBackoff: typeof backoff === "number" || typeof backoff === "boolean" ? backoff : false,
    scheduled: asNumber(document.scheduled, 0),
    progress: asNumber(document.progress, 0),
    attempts: asNumber(document.attempts, 0),
    completed: asNumber(document.completed, 0),
    queued: asNumber(document.queued, 0),
    started: asNumber(document.started, 0),
    touched: asNumber(document.touched, 0),
    result: document.result ?? null,
    error: typeof document.error === "string" ? document.error : null,
    status,
    priority: asNumber(document.priority, 0),
    groupKey: typeof group === "string" ? group : typeof group === "number" ? String(group) : null,
    meta: asObject(document.meta) ?? {},
    workerId: typeof document.worker_id === "string" ? document.worker_id : null,
  };
}

const asNumber = (value: unknown, fallback: number): number =>
  typeof value === "number" && Number.isFinite(value) ? value : fallback;

function asObject(value: unknown): Record<string, unknown> | null {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : null;
}

function parseDocument(text: string, onInvalidNumber?: () => void): Partial<Record<WireName, unknown>> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (parseError) {
    try {
      value = JSON.parse(withoutPythonNumbers(text));
      onInvalidNumber?.();
    } catch {
      throw new PoisonDocumentError(`The stored document is not JSON: ${(parseError as Error).message}`, {
        cause: parseError,
      });
    }
  }
  const document = asObject(value);
  if (!document) throw new PoisonDocumentError("The stored document is JSON, but not an object");
  return document;
}

/** Replaces NaN and the infinities outside of strings by null, so that the rest of the document can be read. */
function withoutPythonNumbers(text: string): string {
  const tokens = /"|-?Infinity|NaN/g;
  let result = "";
  let copiedUntil = 0;
  for (let token = tokens.exec(text); token; token = tokens.exec(text)) {
    if (token[0] === '"') {
      tokens.lastIndex = closingQuote(text, token.index) + 1;
      continue;
    }
    result += `${text.slice(copiedUntil, token.index)}null`;
    copiedUntil = tokens.lastIndex;
  }
  return result + text.slice(copiedUntil);
}

/**
 * Returns the position at which the string that opens at `start` ends. Searches step by step, because one regular
 * expression for a whole string overflows the stack at a few MB.
 *
 * @throws PoisonDocumentError if the string has no end
 */
function closingQuote(text: string, start: number): number {
  const special = /["\\]/g;
  special.lastIndex = start + 1;
  for (let found = special.exec(text); found; found = special.exec(text)) {
    if (found[0] === '"') return found.index;
    special.lastIndex = found.index + 2;
  }
  throw new PoisonDocumentError("The stored document is not JSON: a string has no end");
}

/**
 * Sets and removes members of a document and of its `meta`, and copies all other text unchanged. `patch` is the text of
 * a JSON object, as `encodeChange` returns it.
 *
 * @throws PoisonDocumentError if the text is not an object
 */
export function editDocument(text: string, patch: string, removed: readonly string[] = []): string {
  const members = splitMembers(text);
  for (const name of removed) members.delete(name);
  for (const [name, value] of splitMembers(patch)) {
    if (name !== metaPatchName) members.set(name, value);
    else setOrRemove(members, wireNames.meta, patchedMeta(members.get(wireNames.meta), value));
  }
  return joinMembers(members);
}

/**
 * Returns the text of `meta` after a patch; null if no member is left. A `meta` that is no object counts as empty.
 */
function patchedMeta(meta: string | undefined, patch: string): string | null {
  const members = splitMembers(meta?.startsWith("{") ? meta : "{}");
  for (const [name, value] of splitMembers(patch))
    setOrRemove(members, name, value === "null" ? null : value);
  return members.size > 0 ? joinMembers(members) : null;
}

function setOrRemove(members: Map<string, string>, name: string, value: string | null): void {
  if (value === null) members.delete(name);
  else members.set(name, value);
}

const joinMembers = (members: ReadonlyMap<string, string>): string =>
  `{${[...members].map(([name, value]) => `${JSON.stringify(name)}: ${value}`).join(", ")}}`;

/** Returns the top-level members of a JSON object, each with the unchanged text of its value. */
function splitMembers(text: string): Map<string, string> {
  const tokens = /["{}[\],:]/g;
  const members = new Map<string, string>();
  let depth = 0;
  let name: string | null = null;
  let valueStart = -1;
  const endMember = (end: number) => {
    if (name === null || valueStart < 0) return;
    members.set(name, text.slice(valueStart, end).trim());
    name = null;
    valueStart = -1;
  };
  for (let match = tokens.exec(text); match; match = tokens.exec(text)) {
    const token = match[0];
    if (token === '"') {
      const end = closingQuote(text, match.index);
      tokens.lastIndex = end + 1;
      if (depth === 1 && name === null) name = JSON.parse(text.slice(match.index, end + 1)) as string;
    } else if (token === "{" || token === "[") depth++;
    else if (token === "}" || token === "]") {
      if (depth === 1) endMember(match.index);
      depth--;
    } else if (depth !== 1) continue;
    else if (token === ",") endMember(match.index);
    else valueStart = match.index + 1;
  }
  if (depth !== 0 || !text.trimStart().startsWith("{")) {
    throw new PoisonDocumentError("The stored document is not a JSON object");
  }
  return members;
}
