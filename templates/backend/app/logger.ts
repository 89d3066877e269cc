import { type Logger, type LoggerOptions, pino } from "pino";
import pretty from "pino-pretty";
import { settings } from "./settings.js";

export const logOptions: LoggerOptions = {
  level: settings.logLevel,
  base: null,
  // Fields that may contain a secret.
  redact: [
    "req.headers.authorization",
    "req.headers.cookie",
    'req.headers["x-api-key"]',
    "*.password",
    "*.token",
  ],
};

/** Readable text for development. It is written synchronously, so that the last line before an exit is not lost. */
const readable = () =>
  pretty({
    sync: true,
    singleLine: true,
    translateTime: "HH:MM:ss.l",
    ignore: "reqId,req,res,responseTime",
  });

/** Logs one JSON object per line in production, and readable text otherwise. */
export const logger: Logger = settings.isProduction ? pino(logOptions) : pino(logOptions, readable());
