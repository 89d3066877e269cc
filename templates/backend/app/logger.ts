import { type Logger, pino } from "pino";
import pretty from "pino-pretty";
import { settings } from "./settings.js";

/** Where a secret may turn up in a log line. */
const secrets = [
  "req.headers.authorization",
  "req.headers.cookie",
  'req.headers["x-api-key"]',
  'res.headers["set-cookie"]',
  "*.password",
  "*.token",
];

/**
 * One JSON object per line in production, text for the eye in development. Written synchronously, so that the last
 * line before an exit is there.
 */
export const logger: Logger = pino(
  { level: settings.logLevel, redact: secrets, base: null },
  settings.isProduction
    ? undefined
    : pretty({
        sync: true,
        singleLine: true,
        translateTime: "HH:MM:ss.l",
        ignore: "reqId,req,res,responseTime",
      }),
);
