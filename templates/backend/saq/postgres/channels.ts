/**
 * The notification channels of a queue. `saq:NAME` is SAQ's, and says that jobs may be due (P-20). `saq+NAME` is ours:
 * it says how jobs ended, to those who wait for them, and that one is to be aborted, to the worker that runs it.
 * `saq=ADDRESS` is heard by one process alone, and tells results too: anybody on the database may listen to a channel
 * whose name is known, and this one is known to those only who may read the jobs.
 */
import type { JobAnswer, JobEvent, Settlement } from "../broker.js";
import { isTerminal, parseStatus, type Status } from "../job.js";

/** Where workers are told of due jobs. */
export const wakeChannel = (queueName: string): string => cut(`saq:${queueName}`);

/** Where ends and aborts of jobs are told. */
export const eventChannel = (queueName: string): string => cut(`saq+${queueName}`);

/** Where the ends of the jobs that one process waits for are told. */
export const answerChannel = (address: string): string => `saq=${address}`;

/** To PostgreSQL's 63 bytes, on a character boundary. */
function cut(name: string): string {
  let channel = "";
  let bytes = 0;
  for (const character of name) {
    bytes += Buffer.byteLength(character);
    if (bytes > 63) break;
    channel += character;
  }
  return channel;
}

/**
 * PostgreSQL takes payloads of up to 7,999 bytes and fails the whole statement over a longer one. Our own keys have at
 * most 2,000; a longer one of somebody else is not told, and found by looking.
 */
const mostKeyBytes = 4_000;
const mostResultBytes = 3_900;

/** What is told when a row takes that status; null when nobody waits for it or the key is too long. */
export function eventText(key: string, status: Status): string | null {
  const isTold = isTerminal(status) || status === "aborting";
  return isTold && Buffer.byteLength(key) <= mostKeyBytes ? `${status} ${key}` : null;
}

/**
 * The end of a job, and on a line of its own what it returned, where both fit into a notification. Null for a key with a
 * line break, which no generated one has: it would read as another job's.
 */
function answerText(key: string, status: Status, result: string | null): string | null {
  if (Buffer.byteLength(key) > mostKeyBytes || key.includes("\n")) return null;
  const isTold = result !== null && Buffer.byteLength(result) <= mostResultBytes;
  return isTold ? `${status} ${key}\n${result}` : `${status} ${key}`;
}

/** Null for what is no answer of ours. */
export function parseAnswer(text: string): JobAnswer | null {
  const end = text.indexOf("\n");
  const event = parseEvent(end < 0 ? text : text.slice(0, end));
  return event && { ...event, result: end < 0 ? null : text.slice(end + 1) };
}

/** What is told of a recorded end, and where; both null when nobody waits for it. */
export function endNotice(
  queueName: string,
  { key, status, awaited, result }: Settlement,
): { channel: string; text: string } | { channel: null; text: null } {
  const text =
    awaited === false || status === "queued"
      ? null
      : awaited === true
        ? eventText(key, status)
        : answerText(key, status, result);
  if (text === null) return { channel: null, text };
  return { channel: awaited === true ? eventChannel(queueName) : answerChannel(String(awaited)), text };
}

/** Null for what is no event of ours. */
export function parseEvent(text: string): JobEvent | null {
  const space = text.indexOf(" ");
  const status = space > 0 ? parseStatus(text.slice(0, space)) : null;
  return status && { status, key: text.slice(space + 1) };
}
