/**
 * A fleet of worker processes with one scheduled task, which is due every three seconds. Some of the workers are killed
 * at random moments.
 */
import { afterAll, expect, it } from "@jest/globals";
import { cronJob } from "../../../templates/backend/saq/index.js";
import { endAllWorkers, eventually, WorkerProcess } from "../support/processes/child.js";
import { newDatabase } from "../support/processes/database.js";

afterAll(endAllWorkers);

it("every tick runs exactly once while workers are killed at random moments", async () => {
  const database = await newDatabase("ticks");
  const options = {
    ...database.worker,
    timers: { workerInfo: 0.5, lost: 0.5 },
    // With overlap "allow" each tick has its own key, so that the test can check every single tick afterwards.
    scheduledTasks: [cronJob("record", { cron: "* * * * * */3", overlap: "allow" })],
  };
  const ticks = async () =>
    (await database.stored.rows("default")).flatMap(({ key, status }) => {
      const [, tick] = /^cron:record:(\d+)$/.exec(key) ?? [];
      return tick === undefined ? [] : [{ tick: Number(tick), status }];
    });
  const fleet = await Promise.all([1, 2, 3].map(() => WorkerProcess.start(options)));
  for (let death = 1; death <= 3; death++) {
    // A tick that is due while no worker runs is skipped. On a busy machine, several ticks pass during one start.
    await Promise.all(fleet.map((worker) => worker.said("Worker starting")));
    const before = (await ticks()).length;
    await eventually("another tick", async () => (await ticks()).length > before);
    // Each worker is killed at a random time after a tick.
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 3_000));
    fleet.shift()?.signal("SIGKILL");
    fleet.push(new WorkerProcess(options));
  }
  await Promise.all(fleet.map((worker) => worker.said("Worker starting")));
  await Promise.all(fleet.map((worker) => worker.stop()));
  const heir = await WorkerProcess.start({ ...options, scheduledTasks: [] });
  const past = async () => (await ticks()).filter(({ tick }) => tick <= Date.now() / 1_000);
  // Another tick, stored before, may become due at any time: only those that are due now are checked.
  const all = await eventually("every tick's run is over", async () => {
    const due = await past();
    return due.every(({ status }) => status === "complete") ? due.map(({ tick }) => tick) : null;
  });
  await heir.stop();
  expect(all.length).toBeGreaterThan(2);
  expect(all).toEqual(all.map((_, index) => (all[0] ?? 0) + 3 * index));
  const keys = all.map((tick) => `cron:record:${tick}`);
  const ended = (await database.runs()).filter((run) => run.ended !== null && keys.includes(run.job));
  expect(ended.map((run) => run.job).sort()).toEqual(keys);
  await database.drop();
}, 600_000);
