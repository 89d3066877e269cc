/** Moves the clocks of this process, for tests that cannot wait for minutes. Timers and the database do not change. */
import { jest } from "@jest/globals";

export interface SteppedClock {
  /** Moves the monotonic clock, performance.now(), forward. */
  pass(seconds: number): void;
  /** Moves the wall clock, Date.now(), as if somebody set it. */
  set(seconds: number): void;
}

/** Replaces both clocks until `jest.restoreAllMocks()` is called. */
export function stepClock(): SteppedClock {
  const [running, wall] = [performance.now.bind(performance), Date.now.bind(Date)];
  const ahead = { running: 0, wall: 0 };
  jest.spyOn(performance, "now").mockImplementation(() => running() + ahead.running);
  jest.spyOn(Date, "now").mockImplementation(() => wall() + ahead.wall);
  return {
    pass: (seconds) => {
      ahead.running += seconds * 1_000;
    },
    set: (seconds) => {
      ahead.wall += seconds * 1_000;
    },
  };
}
