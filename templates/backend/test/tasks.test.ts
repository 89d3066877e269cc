/** Tasks alone, without a worker: what they return, report and refuse. */
import { afterAll, beforeAll, expect, it } from "@jest/globals";
import { saq, taskQueues } from "../app/queue/index.js";
import { exampleTask, sendEmailTask } from "../app/queue/tasks.js";
import { inSeconds } from "../saq/index.js";
import { drain, expectEnqueued, runTask } from "../saq/testing/index.js";

const queue = taskQueues.get("default");

beforeAll(() => saq.connect());
afterAll(() => saq.close());

it("exampleTask returns its message and reports a progress of 0.5", async () => {
  const { result, updates, log } = await runTask(exampleTask, { message: "hi" });
  expect(result).toEqual({ status: "success", message: "hi" });
  expect(updates).toEqual([{ progress: 0.5 }]);
  expect(log.map(({ message }) => message)).toEqual(["example task started", "example task finished"]);
});

it("exampleTask stops when its signal is aborted", async () => {
  const run = runTask(exampleTask, { message: "hi" }, { signal: AbortSignal.timeout(50) });
  await expect(run).rejects.toThrow("aborted");
});

it("sendEmailTask refuses an invalid email address", async () => {
  const mail = { to: "nobody", subject: "s", emailBody: "b" };
  await expect(runTask(sendEmailTask, mail)).rejects.toThrow("to: Invalid email address");
});

it("a delayed job runs when it is due, not earlier", async () => {
  await queue.enqueue("delayedTask", { message: "tomorrow" }, { scheduled: inSeconds(24 * 3600) });
  expect(await drain(saq)).toEqual([]);
  await drain(saq, { at: new Date(Date.now() + 25 * 3600 * 1000) });
  expect(await expectEnqueued(queue, "delayedTask", { message: "tomorrow" })).toMatchObject({
    status: "complete",
    result: { status: "success", message: "tomorrow" },
  });
});
