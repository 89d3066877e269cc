/** One attempt without a worker: the timer of its timeout. */
import { afterEach, describe, expect, it, jest } from "@jest/globals";
import { Attempt, type AttemptHost } from "../../../templates/backend/saq/worker/attempt/attempt.js";
import type { AttemptResult } from "../../../templates/backend/saq/worker/settlement/settlement.js";

type Claim = ConstructorParameters<typeof Attempt>[1];
type Fields = ConstructorParameters<typeof Attempt>[2];

afterEach(() => {
  jest.useRealTimers();
});

function begin(timeout: number) {
  const ends: AttemptResult[] = [];
  const host = { hardDeadlineMs: 10, ended: (_: Attempt, end: AttemptResult) => ends.push(end) };
  const fields = { key: "job", timeout, meta: {} } as unknown as Fields;
  const attempt = new Attempt(host as unknown as AttemptHost, { key: "job" } as Claim, fields);
  let finish: (value: unknown) => void = () => {};
  attempt.run(
    () =>
      new Promise((resolve) => {
        finish = resolve;
      }),
  );
  return { attempt, ends, finish: () => finish(null) };
}

describe("a timeout", () => {
  it("still interrupts an attempt after a test has used fake timers and restored the real ones", async () => {
    jest.useFakeTimers();
    const first = begin(60);
    jest.useRealTimers();
    first.finish();
    await first.attempt.taskEnded;
    const second = begin(0.02);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(second.ends).toMatchObject([{ kind: "interrupted", interruption: "timeout" }]);
  });

  it("starts no timer for an attempt that ends in the same turn of the event loop", async () => {
    const { attempt, finish, ends } = begin(60);
    const timers = jest.spyOn(globalThis, "setTimeout");
    finish();
    await attempt.taskEnded;
    await new Promise((resolve) => setImmediate(resolve));
    expect(ends).toEqual([{ kind: "returned", value: null }]);
    expect(timers).not.toHaveBeenCalled();
    timers.mockRestore();
  });
});
