/** Documents as Python SAQ 0.26.3 writes them (spec J-30 to J-40), with the columns beside them. */
export interface Golden {
  clause: string;
  document: string;
  status: string;
  scheduled: number;
  /** Epoch s; null = kept for ever. */
  expireAt: number | null;
}

export const goldenDocuments: readonly Golden[] = [
  {
    clause: "J-30 enqueued",
    document:
      '{"function": "ok", "kwargs": {"a": 1}, "queue": "default", "key": "k1", "timeout": 30, "retries": 2, "queued": 1795303141785, "status": "queued"}',
    status: "queued",
    scheduled: 1795303141,
    expireAt: null,
  },
  {
    clause: "J-31 claimed",
    document:
      '{"function": "ok", "kwargs": {"a": 1}, "queue": "default", "key": "k1", "timeout": 30, "retries": 2, "queued": 1795303141785, "started": 1795303141795, "touched": 1795303141795, "status": "active"}',
    status: "active",
    scheduled: 0,
    expireAt: null,
  },
  {
    clause: "J-32 started",
    document:
      '{"function": "ok", "kwargs": {"a": 1}, "queue": "default", "key": "k1", "timeout": 30, "retries": 2, "attempts": 1, "queued": 1795303141785, "started": 1795303141800, "touched": 1795303141800, "status": "active", "worker_id": "worker-1"}',
    status: "active",
    scheduled: 0,
    expireAt: null,
  },
  {
    clause: "J-33 updated",
    document:
      '{"function": "ok", "kwargs": {"a": 1}, "queue": "default", "key": "k1", "timeout": 30, "retries": 2, "progress": 0.5, "attempts": 1, "queued": 1795303141785, "started": 1795303141800, "touched": 1795303141804, "status": "active", "meta": {"step": 2}, "worker_id": "worker-1"}',
    status: "active",
    scheduled: 0,
    expireAt: null,
  },
  {
    clause: "J-34 retried at once",
    document:
      '{"function": "ok", "kwargs": {"a": 1}, "queue": "default", "key": "k1", "timeout": 30, "retries": 2, "scheduled": 1795303141, "attempts": 1, "queued": 1795303141785, "touched": 1795303141808, "error": "boom", "status": "queued", "meta": {"step": 2}, "worker_id": "worker-1"}',
    status: "queued",
    scheduled: 1795303141,
    expireAt: null,
  },
  {
    clause: "J-35 retried after a delay",
    document:
      '{"function": "bad", "queue": "default", "key": "k5", "retries": 3, "retry_delay": 60.0, "scheduled": 1795303201, "attempts": 1, "queued": 1795303141785, "touched": 1795303141808, "error": "Traceback (most recent call last):\\n  File \\"tasks.py\\", line 3, in bad\\nValueError: oops\\n", "status": "queued", "worker_id": "worker-1"}',
    status: "queued",
    scheduled: 1795303201,
    expireAt: null,
  },
  {
    clause: "J-36 complete",
    document:
      '{"function": "ok", "kwargs": {"a": 1}, "queue": "default", "key": "k1", "timeout": 30, "retries": 2, "scheduled": 1795303141, "progress": 1.0, "attempts": 2, "completed": 1795303141816, "queued": 1795303141785, "started": 1795303141815, "touched": 1795303141817, "result": {"x": 1}, "status": "complete", "meta": {"step": 2}, "worker_id": "worker-1"}',
    status: "complete",
    scheduled: 1795303141,
    expireAt: 1795303742,
  },
  {
    clause: "J-37 failed",
    document:
      '{"function": "bad", "queue": "default", "key": "k4", "attempts": 1, "completed": 1795303141819, "queued": 1795303141785, "started": 1795303141815, "touched": 1795303141819, "error": "Traceback (most recent call last):\\n  File \\"tasks.py\\", line 3, in bad\\nValueError: oops\\n", "status": "failed", "worker_id": "worker-1"}',
    status: "failed",
    scheduled: 0,
    expireAt: 1795303742,
  },
  {
    clause: "J-38 aborted while queued",
    document:
      '{"function": "ok", "kwargs": {"a": "h\\u00e9llo \\u2603"}, "queue": "default", "key": "k2", "scheduled": 1, "completed": 1795303141821, "queued": 1795303141818, "touched": 1795303141821, "error": "nope", "status": "aborted", "priority": 3, "group_key": "g"}',
    status: "aborted",
    scheduled: 1,
    expireAt: 1795303742,
  },
  {
    clause: "J-39 aborted while active",
    document:
      '{"function": "bad", "queue": "default", "key": "k3", "ttl": 0, "retry_delay": 1.5, "retry_backoff": true, "queued": 1795303141818, "started": 1795303141820, "touched": 1795303141822, "error": "nope", "status": "aborting"}',
    status: "aborting",
    scheduled: 0,
    expireAt: null,
  },
  {
    clause: "J-40 made by apply() without timeout",
    document:
      '{"function": "ok", "queue": "default", "key": "k6", "timeout": null, "queued": 1795303141785, "status": "queued"}',
    status: "queued",
    scheduled: 1795303141,
    expireAt: null,
  },
];

const known = new Set(
  "function kwargs queue key timeout heartbeat retries ttl retry_delay retry_backoff scheduled progress attempts completed queued started touched result error status priority group_key meta worker_id".split(
    " ",
  ),
);
const nullable = new Set(["timeout", "kwargs", "result", "error", "group_key", "worker_id"]);
const statuses = new Set(["new", "queued", "active", "aborting", "aborted", "failed", "complete"]);

/**
 * Why Python could not load a document; empty when it can. Its Job is a dataclass made from the document's members:
 * it raises on an unknown name (J-2), on another queue's name (J-1) and later on a null where it counts (J-3).
 */
export function pythonComplaints(text: string, queueName: string): string[] {
  const document = JSON.parse(text) as Record<string, unknown>;
  const complaints = Object.keys(document)
    .filter((name) => !known.has(name))
    .map((name) => `unknown field ${name}`);
  for (const [name, value] of Object.entries(document)) {
    if (value === null && !nullable.has(name)) complaints.push(`${name} is null`);
  }
  if (typeof document.function !== "string") complaints.push("no function");
  if (typeof document.key !== "string") complaints.push("no key");
  if (document.queue !== queueName) complaints.push(`belongs to ${String(document.queue)}`);
  if (!statuses.has(String(document.status ?? "new"))) complaints.push(`status ${String(document.status)}`);
  for (const name of [
    "attempts",
    "queued",
    "started",
    "touched",
    "completed",
    "retries",
    "ttl",
    "priority",
  ]) {
    if (name in document && !Number.isInteger(document[name])) complaints.push(`${name} is no integer`);
  }
  if (document.meta && JSON.stringify(document.meta) === "{}") complaints.push("meta is empty");
  return complaints;
}
