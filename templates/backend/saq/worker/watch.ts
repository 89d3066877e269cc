/** What a worker keeps an eye on beside its jobs: its own sign of life, jobs that are to end, workers that died. */
import type { SweepLimits } from "../broker.js";
import type { Logger } from "../logger.js";
import type { Queue } from "../queue.js";
import type { Attempt } from "./attempt.js";
import type { Chore } from "./upkeep.js";

/** Others step in this long after a living worker should have ended a job itself, s (5.2). */
const sweepGraceSeconds = 5;

/** The chores that look after jobs: those that run here, and those that others left behind. */
export function watch(queue: Queue, running: ReadonlyMap<string, Attempt>, logger: Logger): Chore[] {
  const { broker, config } = queue;
  const { timers } = config;
  const limits: SweepLimits = {
    graceSeconds: config.cancellationHardDeadline + sweepGraceSeconds,
    lostLimit: config.lostLimit,
    lookEvery: timers.lost,
    failedTtl: config.failedTtl,
  };
  const say = (keys: string[]) => {
    if (keys.length > 0) logger.info({ jobs: keys.slice(0, 20), count: keys.length }, "Sweeping");
  };
  return [
    { name: "silence", every: timers.abort, run: async () => interruptSilent(running, broker.now()) },
    { name: "abort", every: timers.abort, run: () => interruptEnded(queue, running, logger) },
    { name: "lost", every: timers.lost, run: async () => say(await broker.sweepLost(limits)) },
    { name: "sweep", every: timers.sweep, run: async () => say(await broker.sweepStuck(limits)) },
  ];
}

/** Jobs that have been silent for longer than their heartbeat. Asks nobody, so that it works without a database. */
function interruptSilent(running: ReadonlyMap<string, Attempt>, now: number): void {
  for (const attempt of running.values()) {
    const { heartbeat, touched } = attempt.fields;
    if (heartbeat && now - touched > heartbeat * 1_000) {
      attempt.interrupt("timeout", `no heartbeat for ${heartbeat} s`);
    }
  }
}

/** Jobs that somebody aborted or took over. The youngest are left for the next look: most are over by then. */
async function interruptEnded(
  { broker, config }: Queue,
  running: ReadonlyMap<string, Attempt>,
  logger: Logger,
): Promise<void> {
  const young = performance.now() - (config.timers.abort * 1_000) / 4;
  const asked = [...running.values()].filter((attempt) => attempt.startedAt < young);
  if (asked.length === 0) return;
  const attemptOf = new Map(asked.map((attempt) => [attempt.fields.key, attempt]));
  for (const { key, why } of await broker.interrupted(asked.map((attempt) => attempt.claim))) {
    const attempt = attemptOf.get(key);
    if (
      attempt?.interrupt(why, why === "abort" ? "aborted" : "taken over by another worker") &&
      why === "abort"
    ) {
      logger.info({ job: key }, `Aborting ${key}`);
    }
  }
}
