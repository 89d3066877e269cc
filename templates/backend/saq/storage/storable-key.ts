/** Which keys of jobs and groups can be stored. All storages have the same rules, so that a queue can change its storage. */
import type { NewJob } from "../core/new-job.js";
import { InvalidJobError } from "../errors.js";

/** A btree entry of PostgreSQL holds 2,704 bytes. The server would refuse a longer key, and with it the whole flush. */
const maxKeyBytes = 2_000;

/** @throws InvalidJobError for a key or a group key that cannot be stored */
export function checkStorable(job: NewJob): void {
  if (job.keyed || job.groupKey !== null) checkChosenTexts(job);
}

function checkChosenTexts(job: NewJob): void {
  const bytes = Buffer.byteLength(job.key);
  if (job.key === "" || bytes > maxKeyBytes) {
    throw new InvalidJobError(
      `A job key must have 1 to ${maxKeyBytes} bytes, got ${bytes}: ${job.key.slice(0, 60)}`,
    );
  }
  for (const [name, text] of [["key", job.key] as const, ["groupKey", job.groupKey ?? ""] as const]) {
    // PostgreSQL refuses a NUL. The drivers would replace half of a surrogate pair with U+FFFD, and the job would be
    // stored under another key.
    const forbidden = text.includes("\0")
      ? "a NUL character"
      : /\p{Surrogate}/u.test(text)
        ? "half of a surrogate pair"
        : null;
    if (forbidden)
      throw new InvalidJobError(`A job's ${name} must not contain ${forbidden}, got ${JSON.stringify(text)}`);
  }
  if (Buffer.byteLength(job.groupKey ?? "") > maxKeyBytes) {
    throw new InvalidJobError(`A job's groupKey must have at most ${maxKeyBytes} bytes`);
  }
}
