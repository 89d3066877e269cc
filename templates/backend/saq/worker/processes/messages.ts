/** The messages between a worker process and the process that started it, on the channel that Node's `fork` opens. */

/** A message to a worker process. */
export type ParentMessage =
  /** Stop; running jobs may continue for `grace` seconds, by default for the grace period. A repetition has no effect. */
  | { readonly saq: "stop"; readonly grace?: number | undefined }
  /** End the grace period. */
  | { readonly saq: "hurry" };

/** A message from a worker process. */
export type ChildMessage =
  /** All its workers take jobs. */
  | { readonly saq: "ready" }
  /** It could not start; `reason` is the text to show. */
  | { readonly saq: "failed"; readonly reason: string }
  /** Its workers have nothing left to do, as after a burst. It ends, and is not wanted again. */
  | { readonly saq: "finished" };

/** True for a message of the engine: the application may use the channel for messages of its own. */
export const isEngineMessage = <Message extends ParentMessage | ChildMessage>(
  message: unknown,
): message is Message => typeof message === "object" && message !== null && "saq" in message;
