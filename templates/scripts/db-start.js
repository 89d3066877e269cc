import path from "node:path";
import { startDatabase } from "./database.js";
import { run } from "./failure.js";

await run(async () => void (await startDatabase(path.dirname(import.meta.dirname))));
