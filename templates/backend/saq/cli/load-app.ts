/** Finds the application's queues: the module that exports `saq`, as app/queue/index does. */
import { existsSync } from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { SaqConfig } from "../config/index.js";
import { createSaq, type Saq } from "../express/create-saq.js";
import type { Queue } from "../queue/queue.js";
import { CliError, usageError } from "./errors.js";

/** Beside this folder, both as TypeScript and compiled. */
const defaultModule = fileURLToPath(
  new URL(`../../app/queue/index${path.extname(import.meta.filename)}`, import.meta.url),
);

/**
 * @param given path of another module, from the folder where the command was typed
 * @throws CliError when there is no such module, or it exports nothing that would do
 */
export async function loadApp(given: string | undefined): Promise<Saq> {
  // npm runs scripts in the package's folder and tells where the user was.
  const file = given === undefined ? defaultModule : path.resolve(process.env.INIT_CWD ?? "", given);
  if (!existsSync(file)) {
    const how = given === undefined ? "Name your own: --config PATH" : `--config ${given} leads nowhere.`;
    throw usageError(`There is no module ${file}. ${how}`);
  }
  const exported = (await import(pathToFileURL(file).href)) as { saq?: unknown; saqConfig?: unknown };
  const saq: unknown = typeof exported.saq === "function" ? await exported.saq() : exported.saq;
  if (isSaq(saq)) return saq;
  if (isConfig(exported.saqConfig)) return createSaq(exported.saqConfig);
  throw new CliError(
    `${file} exports neither \`saq\` (made by createSaq, or a function that answers it) nor \`saqConfig\` (made by defineSaq).`,
  );
}

const isSaq = (value: unknown): value is Saq =>
  typeof value === "object" && value !== null && "taskQueues" in value && "connect" in value;

const isConfig = (value: unknown): value is SaqConfig =>
  typeof value === "object" && value !== null && "queues" in value && Array.isArray(value.queues);

/**
 * The queues of these names, in the order of the configuration; all when none is named.
 *
 * @throws CliError with the known names (D-77)
 */
export function chooseQueues(saq: Saq, names: readonly string[], refusal = usageError): Queue[] {
  const all = saq.taskQueues.all();
  const known = all.map(({ name }) => name);
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) throw refusal(`Unknown queue name ${unknown}. Expected ${known.join(", ")}`);
  return names.length === 0 ? all : all.filter(({ name }) => names.includes(name));
}
