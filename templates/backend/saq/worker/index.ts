export { type ConnectOptions, connectWithRetry } from "./connect-with-retry.js";
export { runWorkerProcess, runWorkers, type WorkerProcessEnd, type WorkerProcessOptions } from "./process.js";
export { ParentProcess } from "./processes/parent-process.js";
export { WorkerProcesses, type WorkerProgramOptions } from "./processes/worker-processes.js";
export { signalSource } from "./stop-signals.js";
export { Worker, type WorkerHealth, type WorkerOptions } from "./worker.js";
