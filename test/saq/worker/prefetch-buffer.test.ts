/** The buffer of jobs that a worker has claimed ahead: their order, and when the next job was claimed. */
import { expect, it } from "@jest/globals";
import type { ClaimedJob } from "../../../templates/backend/saq/core/claim.js";
import { PrefetchBuffer } from "../../../templates/backend/saq/worker/prefetch-buffer.js";

const jobs = (...keys: string[]) => keys.map((key) => ({ key }) as ClaimedJob);

const taken = (ahead: PrefetchBuffer): string[] => {
  const keys: string[] = [];
  for (let job = ahead.next(); job; job = ahead.next()) keys.push(job.key);
  return keys;
};

it("returns jobs in the order of their claims, but first the jobs that were added at the front", () => {
  const ahead = new PrefetchBuffer();
  ahead.add(jobs("a", "b", "c"), 1, "back");
  ahead.add([], 2, "back");
  ahead.add(jobs("d"), 3, "back");
  expect(ahead.next()?.key).toBe("a");
  ahead.add(jobs("x", "y"), 4, "front");
  expect(ahead.size).toBe(5);
  expect(taken(ahead)).toEqual(["x", "y", "b", "c", "d"]);
  expect([ahead.size, ahead.next()]).toEqual([0, undefined]);
});

it("claimedAt is the claim time of the next job, not of the jobs that were claimed later", () => {
  const ahead = new PrefetchBuffer();
  expect(ahead.claimedAt).toBe(Number.POSITIVE_INFINITY);
  ahead.add(jobs("a"), 1, "back");
  ahead.add(jobs("b"), 2, "back");
  expect(ahead.claimedAt).toBe(1);
  ahead.next();
  expect(ahead.claimedAt).toBe(2);
});

it("empty() returns the remaining jobs in order and leaves the buffer empty", () => {
  const ahead = new PrefetchBuffer();
  ahead.add(jobs("a", "b", "c"), 1, "back");
  ahead.add(jobs("d", "e"), 2, "back");
  ahead.next();
  expect(ahead.empty().map(({ key }) => key)).toEqual(["b", "c", "d", "e"]);
  expect([ahead.size, ahead.claimedAt]).toEqual([0, Number.POSITIVE_INFINITY]);
});
