/** Loads the application's queues from the module that exports `saq` or `saqConfig`, by default app/queue/index. */
import { existsSync } from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { SaqConfig } from "../config/index.js";
import { createSaq, type Saq } from "../express/create-saq.js";
import type { Queue } from "../queue/queue.js";
import { CliError, usageError } from "./errors.js";

/** The relative path is the same for the TypeScript sources and for the compiled files. */
const defaultModule = fileURLToPath(
  new URL(`../../app/queue/index${path.extname(import.meta.filename)}`, import.meta.url),
);

/**
 * Imports the module and returns the `Saq` that it exports, or one made from the `saqConfig` that it exports.
 *
 * @param configPath path of another module, relative to the folder where the command was typed
 * @throws CliError when there is no such module, or it exports neither of the two
 */
export async function loadApp(configPath: string | undefined): Promise<Saq> {
  // npm runs scripts in the package's folder; INIT_CWD is the folder where the user typed the command.
  const file =
    configPath === undefined ? defaultModule : path.resolve(process.env.INIT_CWD ?? "", configPath);
  if (!existsSync(file)) {
    const hint = configPath === undefined ? "Set your module: --config PATH" : `Check --config ${configPath}`;
    throw usageError(`There is no module ${file}. ${hint}`);
  }
  const exported = (await import(pathToFileURL(file).href)) as { saq?: unknown; saqConfig?: unknown };
  const saq: unknown = typeof exported.saq === "function" ? await exported.saq() : exported.saq;
  if (isSaq(saq)) return saq;
  if (isConfig(exported.saqConfig)) return createSaq(exported.saqConfig);
  throw new CliError(
    `${file} exports neither \`saq\` (made by createSaq, or a function that returns it) ` +
      "nor `saqConfig` (made by defineSaq).",
  );
}

const isSaq = (value: unknown): value is Saq =>
  typeof value === "object" && value !== null && "taskQueues" in value && "connect" in value;

const isConfig = (value: unknown): value is SaqConfig =>
  typeof value === "object" && value !== null && "queues" in value && Array.isArray(value.queues);

/**
 * Returns the queues with these names, in the order of the configuration; all queues when `names` is empty.
 *
 * @throws CliError for an unknown name; the message lists the known names
 */
export function chooseQueues(saq: Saq, names: readonly string[], refusal = usageError): Queue[] {
  const all = saq.taskQueues.all();
  const known = all.map(({ name }) => name);
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) throw refusal(`Unknown queue name ${unknown}. Expected ${known.join(", ")}`);
  return names.length === 0 ? all : all.filter(({ name }) => names.includes(name));
}
