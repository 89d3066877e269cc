import { closeRunFolder } from "./support/run-folder.js";

export default async function globalTeardown(): Promise<void> {
  await globalThis.stopTestPostgres?.();
  closeRunFolder();
}
