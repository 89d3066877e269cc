/**
 * Options of fast-check for the property tests. A failure prints its seed, its path and, for commands, its replay path.
 * To run the same case again: `FC_SEED=... FC_PATH=... FC_REPLAY=... npm test -- FILE -t NAME`. FC_RUNS sets the number
 * of runs.
 */
import type { Parameters } from "fast-check";

const { FC_SEED, FC_PATH, FC_REPLAY, FC_RUNS } = process.env;

export const tries = (numRuns: number): Parameters<unknown> => ({
  numRuns: FC_RUNS ? Number(FC_RUNS) : numRuns,
  // Where each run uses a database, shrinking a failure takes minutes. The report must come before the test's timeout.
  interruptAfterTimeLimit: 400_000,
  markInterruptAsFailure: true,
  ...(FC_SEED ? { seed: Number(FC_SEED) } : {}),
  ...(FC_PATH ? { path: FC_PATH } : {}),
});

/** Options of `fc.commands`, whose failures need a replay path besides the path. */
export const replay = FC_REPLAY ? { replayPath: FC_REPLAY } : {};
