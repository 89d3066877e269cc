/** What a long command shows while it runs. */
import { afterEach, expect, it, jest } from "@jest/globals";
import { ProgressLine } from "../../../templates/backend/saq/cli/progress-line.js";

afterEach(() => {
  jest.restoreAllMocks();
});

/** Shows the numbers 0, 1, 2, ... at these times, ms, and returns what is written. */
function written(isTTY: boolean, times: readonly number[]): string[] {
  const now = jest.spyOn(performance, "now").mockReturnValue(0);
  const texts: string[] = [];
  const write = (text: unknown) => texts.push(String(text)) > 0;
  const line = new ProgressLine((count) => `${count} so far`, { isTTY, write });
  for (const [count, time] of times.entries()) {
    now.mockReturnValue(time);
    line.show(count);
  }
  line.end();
  line.end();
  return texts;
}

it("writes nothing about a command that ends within a second", () => {
  expect(written(true, [0, 500, 999])).toEqual([]);
  expect(written(false, [0, 500, 999])).toEqual([]);
});

it("rewrites one line of a terminal, at most four times a second, and clears it at the end", () => {
  expect(written(true, [0, 1_000, 1_100, 1_249, 1_250, 5_000])).toEqual([
    "\r1 so far\u001b[K",
    "\r4 so far\u001b[K",
    "\r5 so far\u001b[K",
    "\r\u001b[K",
  ]);
});

it("writes a line every ten seconds if standard error is no terminal", () => {
  expect(written(false, [1_000, 2_000, 10_999, 11_000, 30_000])).toEqual([
    "0 so far\n",
    "3 so far\n",
    "4 so far\n",
  ]);
});
