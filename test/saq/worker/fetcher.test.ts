/** How often a fetcher asks storage, and for how many jobs. Time is the test's own, so storage is played by it too. */
import { afterEach, beforeEach, expect, it, jest } from "@jest/globals";
import type { Broker } from "../../../templates/backend/saq/broker.js";
import { silentLogger } from "../../../templates/backend/saq/logger.js";
import { ProblemLog } from "../../../templates/backend/saq/problem-log.js";
import { Fetcher, type FetchHost } from "../../../templates/backend/saq/worker/fetcher.js";

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

const host: FetchHost = {
  freeSlots: () => 100,
  isPaused: false,
  excluded: null,
  maxToClaim: () => Number.POSITIVE_INFINITY,
  jobsBuffered: () => {},
  jobsClaimed: () => {},
  giveBack: () => {},
};

const fetcherOf = (broker: Partial<Broker>) =>
  new Fetcher(host, {
    broker: broker as Broker,
    queueName: "default",
    workerId: "worker-1",
    concurrency: 100,
    priorities: [0, 10],
    prefetch: false,
    maxClaimMs: 6_000,
    logger: silentLogger,
    problems: new ProblemLog(silentLogger),
    telemetry: { current: null },
    mayWaitForThread: false,
  });

it("a notification makes the fetcher look for grouped jobs at once, even after many looks without a result", async () => {
  let looks = 0;
  const fetcher = fetcherOf({
    claim: async () => ({ jobs: [], more: false }),
    hasGrouped: async () => {
      looks++;
      return true;
    },
  });
  fetcher.wake();
  await jest.advanceTimersByTimeAsync(10_000);
  const [before, limit] = [looks, 200];
  // The pause between two looks is 1 s by now. The next one has just begun to count when a look is over.
  for (let step = 0; looks === before && step < limit; step++) await jest.advanceTimersByTimeAsync(10);
  expect(looks).toBe(before + 1);
  fetcher.wake();
  await jest.advanceTimersByTimeAsync(30);
  expect(looks).toBe(before + 2);
  await fetcher.stop();
});

it.each([
  ["an outage", true, [100, 100, 100]],
  ["the server's time limit", false, [100, 50, 25]],
])(
  "claims that fail slowly because of %s (isOutage: %s) ask for these numbers of jobs: %j",
  async (_what, isOutage, limits) => {
    const asked: number[] = [];
    const fetcher = fetcherOf({
      claim: async ({ limit }) => {
        asked.push(limit);
        await new Promise((resolve) => setTimeout(resolve, 3_000));
        throw new Error("no claim");
      },
      isOutage: () => isOutage,
    });
    fetcher.wake();
    await jest.advanceTimersByTimeAsync(20_000);
    expect(asked.slice(0, 3)).toEqual(limits);
    const stopped = fetcher.stop();
    await jest.advanceTimersByTimeAsync(10_000);
    await stopped;
  },
);

it("a look for grouped jobs that is late has no negative timer, about which Node.js 24 warns", async () => {
  const fetcher = fetcherOf({
    claim: async () => {
      await new Promise((resolve) => setTimeout(resolve, 500));
      return { jobs: [], more: false };
    },
    hasGrouped: async () => false,
  });
  const timers = jest.spyOn(globalThis, "setTimeout");
  for (let turn = 0; turn < 3; turn++) {
    fetcher.wake();
    await jest.advanceTimersByTimeAsync(1_000);
  }
  const delays = timers.mock.calls.map(([, delay]) => Number(delay));
  timers.mockRestore();
  expect(delays.length).toBeGreaterThan(3);
  expect(delays.filter((delay) => delay < 0)).toEqual([]);
  await fetcher.stop();
});
