import { rmSync } from "node:fs";
import { stopTestRedis } from "./support/stop-redis.js";

export default async function globalTeardown(): Promise<void> {
  await globalThis.stopTestPostgres?.();
  if (!process.env.TEST_RUN_FOLDER) return;
  await stopTestRedis(process.env.TEST_RUN_FOLDER);
  rmSync(process.env.TEST_RUN_FOLDER, { recursive: true, force: true });
}
