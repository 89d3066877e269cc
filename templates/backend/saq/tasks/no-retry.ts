/** The error by which a task ends its job without a retry. */

/** The same symbol in every copy of this module and in every realm. There `instanceof` does not hold. */
const mark = Symbol.for("saq.NoRetry");

/**
 * Ends the job as failed, even if attempts are left. Throw it from a task if another attempt would fail too. It has the
 * same effect if a schema throws it, or a hook that runs before or around the task. A subclass has the same effect. An
 * error that only has a NoRetry as its `cause` is retried. After the signal of the attempt has fired, for example at
 * the timeout, the reason of the signal decides, and a NoRetry is ignored.
 *
 * @example
 * if (response.status === 404) throw new NoRetry(`there is no page at ${url}`);
 */
export class NoRetry extends Error {
  constructor(message?: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }

  get [mark](): true {
    return true;
  }
}

/** True if the job of a task that has thrown this must not be retried. */
export function isNoRetry(thrown: unknown): boolean {
  try {
    return typeof thrown === "object" && thrown !== null && mark in thrown && thrown[mark] === true;
  } catch {
    // A proxy threw.
    return false;
  }
}

/** Makes an error that came from another thread a NoRetry again: a message between threads keeps no class. */
export const asNoRetry = (error: Error): Error => Object.setPrototypeOf(error, NoRetry.prototype) as Error;
