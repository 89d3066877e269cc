/** The queues of an application, as app/queue/index.ts exports them. QUEUE_DSN names their database. */
import { writeSync } from "node:fs";
import { createSaq, defineQueue, defineSaq, type Logger } from "../../../../templates/backend/saq/index.js";
import { type LogArguments, readLogCall } from "../../../../templates/backend/saq/logger.js";
import { recordRunsAt, tasks } from "./tasks.js";

const dsn = String(process.env.QUEUE_DSN);
recordRunsAt(dsn);

const makeLogger = (bound: object): Logger => {
  const at =
    (level: string) =>
    (...call: LogArguments) => {
      const { fields, message } = readLogCall(call);
      if (level === "debug" && process.env.LOG_LEVEL !== "debug") return;
      writeSync(
        process.env.SAQ_LOG_STDERR ? 2 : 1,
        `${JSON.stringify({ level, message, process: process.pid, ...bound, ...fields })}\n`,
      );
    };
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    child: (fields) => makeLogger({ ...bound, ...fields }),
  };
};

const options = {
  dsn,
  tasks,
  startTimeout: Number(process.env.START_TIMEOUT ?? 1),
  shutdownGracePeriod: 1,
  cancellationHardDeadline: 0.5,
};
const logger = makeLogger({});
logger.debug({}, "loaded");
export const saq = createSaq(
  defineSaq({
    queues: [defineQueue({ name: "default", ...options }), defineQueue({ name: "mails", ...options })],
    logger,
  }),
);
