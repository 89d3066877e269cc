/** Rows that somebody's transaction holds, changed by people. */
import { describe, expect, it } from "@jest/globals";
import { openQueue, rowOf, useDatabase } from "./support.js";

const database = useDatabase();
const tasks = { hello: (_ctx: unknown, _payload?: object) => "hi" };

describe("an abort of a row that somebody's transaction holds", () => {
  it("5.2: holds up nothing else though there is but one connection, and says after 5 s why it failed", async () => {
    const queue = openQueue(database, tasks, { maxSize: 2 });
    const { key } = await queue.enqueue("hello");
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where key = $1 for update", [key]);
    const began = performance.now();
    const aborts = Promise.allSettled([1, 2, 3].map(() => queue.abort(key)));
    await new Promise((resolve) => setTimeout(resolve, 300));
    const enqueuedAt = performance.now();
    await queue.enqueue("hello");
    expect(performance.now() - enqueuedAt).toBeLessThan(1_000);
    const ends = await aborts;
    expect(ends).toEqual(
      [1, 2, 3].map(() => ({
        status: "rejected",
        reason: expect.objectContaining({ code: "job_held", message: expect.stringContaining(key) }),
      })),
    );
    expect(performance.now() - began).toBeLessThan(7_000);
    expect((await rowOf(database, key))?.status).toBe("queued");
    await other.query("rollback");
    expect(await queue.abort(key)).toBe("aborted");
  }, 20_000);

  it("5.2: succeeds when the row is free within that time", async () => {
    const queue = openQueue(database, tasks, { maxSize: 2 });
    const { key } = await queue.enqueue("hello");
    const other = await database.connect();
    await other.query("begin");
    await other.query("select 1 from saq_jobs where key = $1 for update", [key]);
    const aborted = queue.abort(key);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    await other.query("rollback");
    expect(await aborted).toBe("aborted");
  });
});
