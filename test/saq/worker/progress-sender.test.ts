/** Progress while the database is unreachable. */
import { expect, it } from "@jest/globals";
import type { Attempt } from "../../../templates/backend/saq/worker/attempt/attempt.js";
import { ProgressSender } from "../../../templates/backend/saq/worker/attempt/progress-sender.js";

it("does not block the event loop when a task reports progress in a loop", async () => {
  const sender = new ProgressSender({
    heartbeat: () => Promise.reject(new Error("the database is away")),
    failed: () => {},
    succeeded: () => {},
  });
  const attempt = { isOver: false } as Attempt;
  await sender.send(attempt, { progress: 0 });
  let hasFired = false;
  setTimeout(() => {
    hasFired = true;
  }, 1);
  for (let n = 0; n < 200_000 && !hasFired; n++) await sender.send(attempt, { progress: 0.5 });
  expect(hasFired).toBe(true);
  sender.stop();
});
