/** Paths of files that are loaded by their path. Relative to this file, sources and compiled files lie alike. */
import path from "node:path";
import { fileURLToPath } from "node:url";

const extension = path.extname(import.meta.filename);
const pathOf = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));

/** The module that exports the application's queues, unless another one is named. */
export const defaultModule = pathOf(`../../app/queue/index${extension}`);

/** The program of a worker process. */
export const workerProgram = pathOf(extension === ".ts" ? "./worker-program-dev.js" : "./worker-program.js");
