export { runWorkers } from "./process.js";
export { Worker, type WorkerOptions } from "./worker.js";
