/** Loads in the main thread only. */
import { isMainThread } from "node:worker_threads";
import { task } from "../../../templates/backend/saq/index.js";

if (!isMainThread) throw new Error("this module wants to be alone");

export const broken = task({ thread: import.meta.url, run: () => "never" });
