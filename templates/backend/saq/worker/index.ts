export { runWorkers } from "./process.js";
export { Worker, type WorkerHealth, type WorkerOptions } from "./worker.js";
