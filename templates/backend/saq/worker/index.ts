export { type ConnectOptions, connectWithRetry } from "./connect-with-retry.js";
export { runWorkers } from "./process.js";
export { Worker, type WorkerHealth, type WorkerOptions } from "./worker.js";
