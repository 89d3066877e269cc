export { runWorkers } from "./process.js";
export { type ConnectOptions, connectWithRetry } from "./start-waiting.js";
export { Worker, type WorkerHealth, type WorkerOptions } from "./worker.js";
