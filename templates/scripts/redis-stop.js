import path from "node:path";
import { run } from "./failure.js";
import { stopRedis } from "./redis.js";

await run(() => stopRedis(path.dirname(import.meta.dirname)));
