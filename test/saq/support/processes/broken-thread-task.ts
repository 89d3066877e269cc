/** A module that loads only in the main thread. In any other thread it throws. */
import { isMainThread } from "node:worker_threads";
import { task } from "../../../../templates/backend/saq/index.js";

if (!isMainThread) throw new Error("this module wants to be alone");

export const broken = task({ thread: import.meta.url, run: () => "never" });
