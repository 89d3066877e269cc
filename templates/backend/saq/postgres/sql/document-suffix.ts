/**
 * SQL for claims and completions that change the last bytes of a document instead of reading it as JSON (server CPU per
 * drained job: 64 -> 32 us). Only for a fresh document: one that still is as our own enqueue has written it. Any other
 * document is changed through jsonb.
 *
 *     {..., "status":"queued"}                                                                as enqueued
 *     {..., "attempts":1,"started":S,"worker_id":W,"touched":S,"status":"active"}             claimed
 *     {..., "attempts":1,"started":S,"worker_id":W,"progress":1,...,"status":"complete"}      completed
 */
import { isUtf8, transcode } from "node:buffer";
import type { DocumentSuffix } from "../receipt.js";

const queued = ',"status":"queued"}';

/** The names of the last members of most documents of our enqueue, and the usual lengths of their values. */
const queuedAt = { name: ',"queued":', bytes: 13 };
const scheduled = { name: ',"scheduled":', bytes: 10 };

/**
 * Returns SQL for the due time of a fresh document, as the row's column will hold it: 0 if the document names no time,
 * `due` if it names that time. Null if the document is not fresh: it has another suffix, was tried before, or has the
 * time of its last change (`touched`), which a claim would write a second time. Compact JSON of another program may
 * have it (Python's `separators=(",", ":")`). Our documents have `queued` near the end and no member of a run after it,
 * so most documents need not be searched for `touched`.
 */
export const freshDue = (job: string, due: string): string => {
  const whole = `pg_catalog.convert_to(',"scheduled":' || ${due}::text || '${queued}', 'UTF8')`;
  const length = `pg_catalog.octet_length(${job})`;
  const has = (text: string, beforeEnd: number) =>
    `pg_catalog.substr(${job}, ${length} - ${beforeEnd - 1}, ${text.length}) = '${text}'::bytea`;
  const beforeStatus = ({ name, bytes }: typeof queuedAt, after = 0) =>
    has(name, name.length + bytes + after + queued.length);
  const hasUsualEnd = `${beforeStatus(queuedAt)} or ${beforeStatus(scheduled)}
        and ${beforeStatus(queuedAt, scheduled.name.length + scheduled.bytes)}`;
  return `case when ${has(queued, queued.length)}
      and case when ${hasUsualEnd} then true else position('"touched":'::bytea in ${job}) = 0 end
      and position('"attempts":'::bytea in ${job}) = 0 then
    case position('"scheduled":'::bytea in ${job}) when 0 then 0
      when ${length} - pg_catalog.octet_length(${whole}) + 2 then
        case when pg_catalog.substr(${job}, ${length} - pg_catalog.octet_length(${whole}) + 1) = ${whole} then ${due} end
    end end`;
};

/** Returns SQL for a fresh document after its claim: `suffix` replaces its status. */
export const freshClaimed = (job: string, suffix: string): string =>
  `pg_catalog.substr(${job}, 1, pg_catalog.octet_length(${job}) - ${queued.length}) || ${suffix}`;

/** Returns SQL for the two parts of `suffixOf` as one text. `worker` is SQL for a JSON text, `ms` for epoch ms. */
export const claimedSuffix = (worker: string, ms: string): string =>
  `',"attempts":1,"started":' || ${ms}::text || ',"worker_id":' || ${worker} || ',"touched":' || ${ms}::text || ',"status":"active"}'`;

export function suffixOf(workerId: string, ms: string): DocumentSuffix {
  return {
    started: Number(ms),
    kept: `,"attempts":1,"started":${ms},"worker_id":${JSON.stringify(workerId)},`,
    replaced: `"touched":${ms},"status":"active"}`,
  };
}

/**
 * Returns SQL for a document as it is sent to the worker, which decodes it with `decodeDocument`. `escaped` is its text
 * in PostgreSQL's `escape` format. That format never fails, while `convert_from` of invalid UTF-8 fails a whole
 * statement. If the escaped text is not longer than the document, it is the document's own text. A document with
 * characters beyond ASCII or backslashes is sent in base64 instead, which native code decodes (worker CPU for 2 KB of
 * Cyrillic text: 835 -> 9 us, for 2 KB with escaped quotes and line ends: 132 -> 9 us).
 */
export const encodedDocument = (job: string, escaped: string): string =>
  `case when pg_catalog.octet_length(${escaped}) = pg_catalog.octet_length(${job}) and pg_catalog.get_byte(${job}, 0) = ${"{".charCodeAt(0)}
      then ${escaped} else pg_catalog.encode(${job}, 'base64') end`;

/** Returns the document that `encodedDocument` has encoded; null if it is not valid UTF-8. */
export function decodeDocument(sent: string): string | null {
  if (sent.startsWith("{")) return sent;
  const bytes = Buffer.from(sent, "base64");
  // Through UTF-16, in which V8 holds a string with such characters: three times as fast as toString("utf8").
  return isUtf8(bytes) ? transcode(bytes, "utf8", "utf16le").toString("utf16le") : null;
}
