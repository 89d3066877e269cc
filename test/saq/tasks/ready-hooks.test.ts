/** The ready-made hooks, with a real worker (S-40, S-41, D-81). */
import { describe, expect, it } from "@jest/globals";
import * as saq from "../../../templates/backend/saq/index.js";
import { type LogArguments, readLogCall } from "../../../templates/backend/saq/logger.js";
import { openQueue, startWorker, useDatabase } from "../support/scenario.js";

const database = useDatabase();

describe("ready-made hooks", () => {
  it("D-81, T-167 to T-171: log the worker and the status of the job, and never the payload", async () => {
    const queue = openQueue(
      database,
      {
        given: () => "result",
        bad: () => {
          throw new Error("no");
        },
      },
      {
        startup: saq.startupLogger,
        shutdown: [saq.shutdownLogger],
        beforeProcess: [saq.beforeProcessLogger, saq.timingBeforeProcess],
        afterProcess: [saq.afterProcessLogger, saq.timingAfterProcess],
      },
    );
    const { worker, log, ended } = await startWorker(queue);
    const good = await queue.enqueue("given", { secret: "s3cret" } as never);
    await ended(good.key);
    const bad = await queue.enqueue("bad");
    await ended(bad.key);
    await worker.stop();
    const said = log.lines
      .filter(({ fields }) => fields.event !== undefined)
      .map(({ level, message, fields }) => ({ level, message, ...fields }));
    const of = { worker_id: worker.workerId, queue_name: queue.name };
    const timing = (job: string, name: string) => ({
      level: "info",
      message: expect.stringMatching(/^Job completed in \d+\.\d\dms$/),
      job_id: job,
      function: name,
      duration_ms: expect.any(Number),
      event: "job_timing",
    });
    const job = (key: string, name: string) => ({ level: "debug", job_id: key, function: name });
    expect(said).toMatchObject([
      { level: "info", message: "SAQ worker starting", event: "worker_startup", ...of },
      { ...job(good.key, "given"), message: "Processing job", event: "job_start" },
      { ...job(good.key, "given"), message: "Job completed", status: "complete", event: "job_complete" },
      timing(good.key, "given"),
      { ...job(bad.key, "bad"), message: "Processing job", event: "job_start" },
      { ...job(bad.key, "bad"), message: "Job completed", status: "failed", event: "job_complete" },
      timing(bad.key, "bad"),
      { level: "info", message: "SAQ worker shutting down", event: "worker_shutdown", ...of },
    ]);
    expect(JSON.stringify(log.lines)).not.toContain("s3cret");
  });

  it("T-171: log a warning if timingAfterProcess runs without timingBeforeProcess", async () => {
    const queue = openQueue(database, { given: () => 1 }, { afterProcess: saq.timingAfterProcess });
    const { log } = await startWorker(queue);
    const { key } = await queue.enqueue("given");
    const line = await log.saw(({ level }) => level === "warn");
    expect(line).toMatchObject({
      message: "timingAfterProcess called without timingBeforeProcess",
      fields: { job_id: key, function: "given" },
    });
  });

  it("T-167 to T-171: log a missing value as unknown", () => {
    const lines: object[] = [];
    const say = (...call: LogArguments) => void lines.push(readLogCall(call).fields);
    const log = { debug: say, info: say, warn: say, error: say, child: () => log };
    saq.startupLogger({ log });
    saq.shutdownLogger({ log });
    saq.beforeProcessLogger({ log });
    saq.afterProcessLogger({ log });
    saq.timingAfterProcess({ log, ...saq.timingBeforeProcess() });
    const unknown = { job_id: "unknown", function: "unknown" };
    expect(lines).toMatchObject([
      { worker_id: "unknown", queue_name: "unknown" },
      { worker_id: "unknown", queue_name: "unknown" },
      unknown,
      { ...unknown, status: "unknown" },
      unknown,
    ]);
  });

  it("T-174: become lists in the configuration, alone or together with the user's own hooks", () => {
    const own = () => {};
    const config = saq.defineQueue({
      name: "q",
      dsn: "postgresql://h/d",
      tasks: { own },
      startup: saq.startupLogger,
      shutdown: [own, saq.shutdownLogger],
      beforeProcess: [saq.beforeProcessLogger, saq.timingBeforeProcess],
      afterProcess: [saq.timingAfterProcess, saq.afterProcessLogger],
    });
    expect(config).toMatchObject({
      startup: [saq.startupLogger],
      shutdown: [own, saq.shutdownLogger],
      beforeProcess: [saq.beforeProcessLogger, saq.timingBeforeProcess],
      afterProcess: [saq.timingAfterProcess, saq.afterProcessLogger],
    });
  });
});
