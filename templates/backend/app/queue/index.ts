/**
 * What the rest of the application imports from this folder. index.ts imports config.ts, which imports tasks.ts; no
 * import goes the other way.
 */
import { createSaq } from "../../saq/index.js";
import { saqConfig } from "./config.js";
import { createQueueRoutes } from "./routes.js";

export const saq = createSaq(saqConfig);
export const taskQueues = saq.taskQueues;
export const queueRoutes = createQueueRoutes(taskQueues);
