import path from "node:path";
import { resetDatabase } from "./database.js";
import { run } from "./failure.js";

await run(async () => void (await resetDatabase(path.dirname(import.meta.dirname))));
