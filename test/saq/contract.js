/**
 * The contract of a broker: test files about the behaviour of queues and workers, and not about one storage. jest runs
 * each of them once per broker (jest.config.js); test/saq/support/test-broker.ts says which one a run has.
 */
export const contractFiles = [
  "test/saq/queue/apply.test.ts",
  "test/saq/queue/before-enqueue.test.ts",
  "test/saq/queue/change-many.test.ts",
  "test/saq/queue/counts-and-listeners.test.ts",
  "test/saq/queue/enqueue.test.ts",
  "test/saq/queue/enqueue-batches.test.ts",
  "test/saq/queue/enqueue-keys.test.ts",
  "test/saq/queue/events.test.ts",
  "test/saq/queue/job-editor.test.ts",
  "test/saq/queue/job-edits.test.ts",
  "test/saq/queue/job-filter.test.ts",
  "test/saq/queue/large-documents.test.ts",
  "test/saq/queue/map.test.ts",
  "test/saq/queue/queue.test.ts",
  "test/saq/queue/refusals.test.ts",
  "test/saq/queue/schedules.test.ts",
  "test/saq/queue/unawaited-results.test.ts",
  "test/saq/tasks/monitored-job.test.ts",
  "test/saq/tasks/ready-hooks.test.ts",
  "test/saq/tasks/validators.test.ts",
  "test/saq/telemetry/channels.test.ts",
  "test/saq/telemetry/metrics.test.ts",
  "test/saq/telemetry/schedules.test.ts",
  "test/saq/telemetry/spans.test.ts",
  "test/saq/testing/testing.test.ts",
  "test/saq/worker/alone.test.ts",
  "test/saq/worker/attempt-history.test.ts",
  "test/saq/worker/burst.test.ts",
  "test/saq/worker/hooks.test.ts",
  "test/saq/worker/idle-polling.test.ts",
  "test/saq/worker/lifecycle.test.ts",
  "test/saq/worker/run.test.ts",
  "test/saq/worker/run-context.test.ts",
  "test/saq/worker/schedule.test.ts",
  "test/saq/worker/task-ends.test.ts",
  "test/saq/worker/unending-tasks.test.ts",
];

/**
 * The files that run on a Redis Cluster in each test run: those with the most scripts. TEST_CLUSTER_CONTRACT=all runs
 * the whole contract there.
 */
export const clusterFiles = [
  "test/saq/queue/change-many.test.ts",
  "test/saq/queue/enqueue-keys.test.ts",
  "test/saq/queue/job-edits.test.ts",
  "test/saq/queue/schedules.test.ts",
  "test/saq/worker/run.test.ts",
];

/**
 * Files about workers as processes and about faults, which take long. They run on PostgreSQL and on Redis, and not with
 * `pollInterval`: what differs there is in the files above.
 */
export const processFiles = [
  "test/saq/chaos/workers.test.ts",
  "test/saq/cli/jobs.test.ts",
  "test/saq/fleet/state-machine.test.ts",
  "test/saq/worker/outage.test.ts",
  "test/saq/worker/process.test.ts",
  "test/saq/worker/start.test.ts",
  "test/saq/worker/stop.test.ts",
  "test/saq/worker/thread-process.test.ts",
  "test/saq/worker/threads.test.ts",
];
