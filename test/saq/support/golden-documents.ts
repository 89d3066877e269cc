/**
 * Rows as Python SAQ 0.26.3 wrote them, byte for byte (spec J-30 to J-41). They were recorded while the real SAQ ran a
 * few jobs, in the order in which it wrote them.
 */
import { readFileSync } from "node:fs";

export interface Golden {
  clause: string;
  key: string;
  status: string;
  priority: number;
  groupKey: string | null;
  /** Epoch s. */
  scheduled: number;
  /** Epoch s; null = kept for ever. */
  expireAt: number | null;
  document: string;
  /** The document contains what JSON does not know, or what JavaScript reads as something else (D-64). */
  odd?: true;
}

const recorded = JSON.parse(
  readFileSync(new URL("./golden/python-0.26.3.json", import.meta.url), "utf8"),
) as { rows: Golden[] };

export const goldenDocuments: readonly Golden[] = recorded.rows.filter(({ odd }) => !odd);
export const oddDocuments: readonly Golden[] = recorded.rows.filter(({ odd }) => odd);

/** Returns the document as it would be in a queue of another name. */
export const documentIn = (queueName: string, { document }: Golden): string =>
  document.replace(/("queue": ?)"default"/, `$1"${queueName}"`);

const known = new Set(
  "function kwargs queue key timeout heartbeat retries ttl retry_delay retry_backoff scheduled progress attempts completed queued started touched result error status priority group_key meta worker_id".split(
    " ",
  ),
);
const nullable = new Set(["timeout", "kwargs", "result", "error", "group_key", "worker_id"]);
const statuses = new Set(["new", "queued", "active", "aborting", "aborted", "failed", "complete"]);

/**
 * Returns the reasons why Python could not load a document; empty if it can. Python's Job is a dataclass that is made
 * from the document's members. It raises on an unknown name (J-2) and on another queue's name (J-1), and later on a
 * null in a field that must have a value (J-3).
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
