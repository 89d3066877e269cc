/** This process's clocks, moved on by a test that cannot wait for minutes. Timers and the database keep their own. */
import { jest } from "@jest/globals";

export interface SteppedClock {
  /** The clock that only ever runs. */
  pass(seconds: number): void;
  /** The clock that people set. */
  set(seconds: number): void;
}

/** Until `jest.restoreAllMocks()`. */
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
