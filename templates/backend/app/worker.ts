import "./start-errors.js";
import { runWorkers } from "../saq/index.js";
import { logger } from "./logger.js";
import { saq } from "./queue/index.js";

await saq.connect();
process.exitCode = await runWorkers(saq, { logger, reloader: process.env.SAQ_RELOADER === "1" });
