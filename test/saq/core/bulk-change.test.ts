/** Which jobs belong to a change by filter that has begun: none is changed again because of its own change. */
import { expect, it } from "@jest/globals";
import { belongsTo } from "../../../templates/backend/saq/core/bulk-change.js";
import { type JobFields, jobDefaults } from "../../../templates/backend/saq/core/job.js";

const start = 1_795_303_141_785;

const waiting = (given: Partial<JobFields>): JobFields => ({
  ...jobDefaults,
  function: "ok",
  queueName: "default",
  key: "k1",
  meta: {},
  status: "queued",
  queued: start - 1_000,
  ...given,
});

it.each<[string, Partial<JobFields>, boolean]>([
  ["that waits for its time", {}, true],
  ["that was enqueued later", { queued: start + 1 }, false],
  ["that waits for its next attempt", { attempts: 1, touched: start - 1 }, true],
  ["that has failed since, and waits for its next attempt", { attempts: 1, touched: start + 1 }, false],
  ["that was snoozed", { meta: { snoozes: 1 }, touched: start - 1 }, true],
  ["that has been snoozed since", { meta: { snoozes: 1 }, touched: start + 1 }, false],
])("making jobs due now concerns a job %s: %j is %s", (_, given, expected) => {
  expect(belongsTo("runNow", waiting(given), start)).toBe(expected);
});
