/** Loads the application's queues from the module that exports `saq` or `saqConfig`. */
import { pathToFileURL } from "node:url";
import type { SaqConfig } from "../config/index.js";
import { ConfigError } from "../errors.js";
import { createSaq, type Saq } from "./create-saq.js";

/**
 * Imports a module and returns the `Saq` that it exports, or one made from the `saqConfig` that it exports.
 *
 * @param file path of the module; it must exist
 * @throws ConfigError if it exports neither of the two; any error that the module throws while it loads
 */
export async function loadSaq(file: string): Promise<Saq> {
  const exported = (await import(pathToFileURL(file).href)) as { saq?: unknown; saqConfig?: unknown };
  const saq: unknown = typeof exported.saq === "function" ? await exported.saq() : exported.saq;
  if (isSaq(saq)) return saq;
  if (isConfig(exported.saqConfig)) return createSaq(exported.saqConfig);
  throw new ConfigError(
    `${file} exports neither \`saq\` (made by createSaq, or a function that returns it) ` +
      "nor `saqConfig` (made by defineSaq).",
  );
}

const isSaq = (value: unknown): value is Saq =>
  typeof value === "object" && value !== null && "taskQueues" in value && "connect" in value;

const isConfig = (value: unknown): value is SaqConfig =>
  typeof value === "object" && value !== null && "queues" in value && Array.isArray(value.queues);
