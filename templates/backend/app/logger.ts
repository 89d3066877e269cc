import { type Logger, type LoggerOptions, pino } from "pino";
import pretty from "pino-pretty";
import { settings } from "./settings.js";

export const logOptions: LoggerOptions = {
  level: settings.logLevel,
  base: null,
  // Where a secret may turn up in a line.
  redact: [
    "req.headers.authorization",
    "req.headers.cookie",
    'req.headers["x-api-key"]',
    "*.password",
    "*.token",
  ],
};

/** Text for the eye. Synchronous, so that the last line before an exit is there. */
const readable = () =>
  pretty({
    sync: true,
    singleLine: true,
    translateTime: "HH:MM:ss.l",
    ignore: "reqId,req,res,responseTime",
  });

/** One JSON object per line in production. */
export const logger: Logger = settings.isProduction ? pino(logOptions) : pino(logOptions, readable());
