import path from "node:path";
import { stopDatabase } from "./database.js";
import { run } from "./failure.js";

await run(async () => void (await stopDatabase(path.dirname(import.meta.dirname))));
