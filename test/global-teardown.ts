import { rmSync } from "node:fs";

export default async function globalTeardown(): Promise<void> {
  await globalThis.stopTestPostgres?.();
  if (process.env.TEST_RUN_FOLDER) rmSync(process.env.TEST_RUN_FOLDER, { recursive: true, force: true });
}
