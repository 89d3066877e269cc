/**
 * How a property is tried. A failure prints its seed, path and, for commands, replay path; the same case again:
 * `FC_SEED=... FC_PATH=... FC_REPLAY=... npm test -- FILE -t NAME`. FC_RUNS tries harder.
 */
import type { Parameters } from "fast-check";

const { FC_SEED, FC_PATH, FC_REPLAY, FC_RUNS } = process.env;

export const tries = (numRuns: number): Parameters<unknown> => ({
  numRuns: FC_RUNS ? Number(FC_RUNS) : numRuns,
  // A failure is shrunk for minutes where each try takes a database: its report must come before the test's own limit.
  interruptAfterTimeLimit: 400_000,
  markInterruptAsFailure: true,
  ...(FC_SEED ? { seed: Number(FC_SEED) } : {}),
  ...(FC_PATH ? { path: FC_PATH } : {}),
});

/** For `fc.commands`, whose failures need more than a path. */
export const replay = FC_REPLAY ? { replayPath: FC_REPLAY } : {};
