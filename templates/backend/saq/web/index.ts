export type { WebQueue } from "./queue.js";
export { createWebRouter, type WebRouterOptions } from "./router.js";
