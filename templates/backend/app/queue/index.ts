/** The face of this folder. Imports run tasks <- config <- index; nothing here is imported back. */
import { createSaq } from "../../saq/index.js";
import { saqConfig } from "./config.js";
import { createQueueRoutes } from "./routes.js";

export const saq = createSaq(saqConfig);
export const taskQueues = saq.taskQueues;
export const queueRoutes = createQueueRoutes(taskQueues);
