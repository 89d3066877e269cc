/**
 * The notifications about jobs. SAQ publishes each new status of a job on the channel of the job's id. This engine does so
 * too, for Python processes that wait. Its own processes listen to other channels, because they would otherwise receive
 * a message for each job that any worker runs.
 */
import type { JobReply, Settlement } from "../broker.js";
import { isTerminal, parseStatus, type Status } from "../core/job.js";
import { replyChannel } from "./keys.js";

export interface Notification {
  channel: string;
  text: string;
}

/** The message on the channel for events that says that the pauses of the queue have changed. It names no job. */
export const pausesMessage = "pauses";

/** A longer result is not sent; the waiting process reads the job. */
const maxResultBytes = 64 * 1024;

/**
 * Returns the notification of a settlement: to the one process that waits for it, or to all (`events`). Null if nobody
 * waits.
 */
export function notificationOf(
  { key, status, awaited, result }: Pick<Settlement, "key" | "status" | "awaited" | "result">,
  events: string,
): Notification | null {
  if (awaited === false || status === "queued" || key.includes("\n")) return null;
  if (awaited === true) return eventOf(key, status, events);
  const isSent = status === "complete" && result !== null && Buffer.byteLength(result) <= maxResultBytes;
  return { channel: replyChannel(awaited), text: `${status} ${key}${isSent ? `\n${result}` : ""}` };
}

/** Returns the notification of a status that others may wait for; null for other statuses. */
export const eventOf = (key: string, status: Status, events: string): Notification | null =>
  isTerminal(status) || status === "aborting" ? { channel: events, text: `${status} ${key}` } : null;

/** Returns null if the text is no notification of this engine. */
export function parseNotification(text: string): JobReply | null {
  const end = text.indexOf("\n");
  const head = end < 0 ? text : text.slice(0, end);
  const space = head.indexOf(" ");
  const status = space > 0 ? parseStatus(head.slice(0, space)) : null;
  return status && { status, key: head.slice(space + 1), result: end < 0 ? null : text.slice(end + 1) };
}
