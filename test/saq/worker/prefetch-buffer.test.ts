/** The buffer of jobs that a worker has prefetched: their order, and when the next job was claimed. */
import { expect, it } from "@jest/globals";
import type { ClaimedJob } from "../../../templates/backend/saq/core/claim.js";
import { PrefetchBuffer } from "../../../templates/backend/saq/worker/prefetch-buffer.js";

const jobs = (...keys: string[]) => keys.map((key) => ({ key }) as ClaimedJob);

const taken = (buffer: PrefetchBuffer): string[] => {
  const keys: string[] = [];
  for (let job = buffer.next(); job; job = buffer.next()) keys.push(job.key);
  return keys;
};

it("returns jobs in the order of their claims, but first the jobs that were added at the front", () => {
  const buffer = new PrefetchBuffer();
  buffer.add(jobs("a", "b", "c"), 1, "back");
  buffer.add([], 2, "back");
  buffer.add(jobs("d"), 3, "back");
  expect(buffer.next()?.key).toBe("a");
  buffer.add(jobs("x", "y"), 4, "front");
  expect(buffer.size).toBe(5);
  expect(taken(buffer)).toEqual(["x", "y", "b", "c", "d"]);
  expect([buffer.size, buffer.next()]).toEqual([0, undefined]);
});

it("claimedAt is the claim time of the next job, not of the jobs that were claimed later", () => {
  const buffer = new PrefetchBuffer();
  expect(buffer.claimedAt).toBe(Number.POSITIVE_INFINITY);
  buffer.add(jobs("a"), 1, "back");
  buffer.add(jobs("b"), 2, "back");
  expect(buffer.claimedAt).toBe(1);
  buffer.next();
  expect(buffer.claimedAt).toBe(2);
});

it("takeAll() returns the remaining jobs in order and leaves the buffer empty", () => {
  const buffer = new PrefetchBuffer();
  buffer.add(jobs("a", "b", "c"), 1, "back");
  buffer.add(jobs("d", "e"), 2, "back");
  buffer.next();
  expect(buffer.takeAll().map(({ key }) => key)).toEqual(["b", "c", "d", "e"]);
  expect([buffer.size, buffer.claimedAt]).toEqual([0, Number.POSITIVE_INFINITY]);
});
