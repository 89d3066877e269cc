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

/** Standard output, or standard error. */
const fileDescriptor = settings.logsToStderr ? 2 : 1;

/** Readable text for development. It is written synchronously, so that the last line before an exit is not lost. */
const readable = () =>
  pretty({
    sync: true,
    destination: fileDescriptor,
    singleLine: true,
    translateTime: "HH:MM:ss.l",
    ignore: "reqId,req,res,responseTime",
  });

/** Logs one JSON object per line in production, and readable text otherwise. */
export const logger: Logger = pino(
  logOptions,
  settings.isProduction ? pino.destination(fileDescriptor) : readable(),
);
