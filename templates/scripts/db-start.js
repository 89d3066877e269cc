import path from "node:path";
import { startDatabase } from "./database.js";
import { run } from "./failure.js";
import { startToKeep } from "./server-owner.js";

await run(() => startToKeep(path.dirname(import.meta.dirname), "database", startDatabase));
