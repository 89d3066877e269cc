/**
 * The notification channels of a queue. `saq:NAME` is SAQ's own channel and says that jobs may be due. `saq+NAME` is
 * used by this engine only: it reports the ends of jobs to the processes that wait for them, an abort request to the
 * worker that runs the job, and changes of the pauses to all workers. `saq=ADDRESS` has one listening process and also
 * carries results. Anybody on the database may listen to a channel whose name is known, but only those who may read the
 * jobs know the address.
 */
import type { JobEvent, JobReply, Settlement } from "../broker.js";
import { isTerminal, parseStatus, type Status } from "../core/job.js";

/** The channel on which workers are notified of due jobs. */
export const wakeChannel = (queueName: string): string => truncate(`saq:${queueName}`);

/** The channel for ends and aborts of jobs. */
export const eventChannel = (queueName: string): string => truncate(`saq+${queueName}`);

/** The payload on the channel for events that says that the pauses of the queue have changed. It names no job. */
export const pausesPayload = "pauses";

/** The channel for the ends of the jobs that one process waits for. */
export const replyChannel = (address: string): string => `saq=${address}`;

/** Cuts a name to PostgreSQL's maximum of 63 bytes, on a character boundary. */
function truncate(name: string): string {
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
 * PostgreSQL accepts payloads of up to 7,999 bytes; a longer one makes the whole statement fail. Our own keys have at
 * most 2,000 bytes. For a longer key of another program no notification is sent; waiting processes find its end by
 * polling.
 */
const maxKeyBytes = 4_000;
const maxResultBytes = 3_900;

/** The payload for a row that takes this status; null if nobody waits for this status or the key is too long. */
export function eventPayload(key: string, status: Status): string | null {
  const isReported = isTerminal(status) || status === "aborting";
  return isReported && Buffer.byteLength(key) <= maxKeyBytes ? `${status} ${key}` : null;
}

/**
 * The payload for the end of a job: status and key, and on a second line the result if it fits. Null if the key is too
 * long or has a line break: it would be read as the key of another job. Generated keys have no line break.
 */
function replyPayload(key: string, status: Status, result: string | null): string | null {
  if (Buffer.byteLength(key) > maxKeyBytes || key.includes("\n")) return null;
  const isResultSent = result !== null && Buffer.byteLength(result) <= maxResultBytes;
  return isResultSent ? `${status} ${key}\n${result}` : `${status} ${key}`;
}

/** Returns null if the text is not the end of a job as this engine reports it. */
export function parseReply(text: string): JobReply | null {
  const end = text.indexOf("\n");
  const event = parseEvent(end < 0 ? text : text.slice(0, end));
  return event && { ...event, result: end < 0 ? null : text.slice(end + 1) };
}

/** The channel and payload that report a recorded end; both null if nobody waits for it or its key cannot be sent. */
export function settlementNotification(
  queueName: string,
  { key, status, awaited, result }: Settlement,
): { channel: string; text: string } | { channel: null; text: null } {
  const text =
    awaited === false || status === "queued"
      ? null
      : awaited === true
        ? eventPayload(key, status)
        : replyPayload(key, status, result);
  if (text === null) return { channel: null, text };
  return { channel: awaited === true ? eventChannel(queueName) : replyChannel(String(awaited)), text };
}

/** Returns null if the text is not an event of this engine. */
export function parseEvent(text: string): JobEvent | null {
  const space = text.indexOf(" ");
  const status = space > 0 ? parseStatus(text.slice(0, space)) : null;
  return status && { status, key: text.slice(space + 1) };
}
