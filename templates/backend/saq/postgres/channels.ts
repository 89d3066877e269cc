/**
 * The notification channels of a queue. `saq:NAME` is SAQ's, and says that jobs may be due (P-20). `saq+NAME` is ours:
 * it says how jobs ended, to those who wait for them, and that one is to be aborted, to the worker that runs it.
 */
import type { JobEvent } from "../broker.js";
import { isTerminal, parseStatus, type Status } from "../job.js";

/** Where workers are told of due jobs. */
export const wakeChannel = (queueName: string): string => cut(`saq:${queueName}`);

/** Where ends and aborts of jobs are told. */
export const eventChannel = (queueName: string): string => cut(`saq+${queueName}`);

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
export const mostKeyBytes = 4_000;

/** What is told when a row takes that status; null when nobody waits for it or the key is too long. */
export function eventText(key: string, status: Status): string | null {
  const isTold = isTerminal(status) || status === "aborting";
  return isTold && Buffer.byteLength(key) <= mostKeyBytes ? `${status} ${key}` : null;
}

/** Null for what is no event of ours. */
export function parseEvent(text: string): JobEvent | null {
  const space = text.indexOf(" ");
  const status = space > 0 ? parseStatus(text.slice(0, space)) : null;
  return status && { status, key: text.slice(space + 1) };
}
