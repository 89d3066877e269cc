/** The worker process: connects to the database, then runs jobs until a stop signal arrives. */

import "./start-errors.js";
import { runWorkers } from "../saq/index.js";
import { logger } from "./logger.js";
import { saq } from "./queue/index.js";
import { settings } from "./settings.js";
import { printStartError } from "./start-errors.js";

process.exitCode = await runWorkers(saq, {
  logger,
  reloader: settings.underReloader,
  onStartError: printStartError,
});
