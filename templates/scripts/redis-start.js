import path from "node:path";
import { run } from "./failure.js";
import { startRedis } from "./redis.js";
import { startToKeep } from "./server-owner.js";

await run(() => startToKeep(path.dirname(import.meta.dirname), "redis", startRedis));
