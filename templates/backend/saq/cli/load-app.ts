/** Finds and loads the module that exports the application's queues, and chooses queues by name. */
import { existsSync } from "node:fs";
import path from "node:path";
import type { Saq } from "../express/create-saq.js";
import { loadSaq } from "../express/load-saq.js";
import { defaultModule } from "../express/program-paths.js";
import type { Queue } from "../queue/queue.js";
import { usageError } from "./errors.js";

/**
 * Returns the path of the module that exports the queues.
 *
 * @param configPath path of another module than app/queue/index, relative to the folder where the command was typed
 * @throws CliError if there is no such module
 */
export function modulePath(configPath: string | undefined): string {
  // npm runs scripts in the package's folder; INIT_CWD is the folder where the user typed the command.
  const file =
    configPath === undefined ? defaultModule : path.resolve(process.env.INIT_CWD ?? "", configPath);
  if (existsSync(file)) return file;
  const hint = configPath === undefined ? "Set your module: --config PATH" : `Check --config ${configPath}`;
  throw usageError(`There is no module ${file}. ${hint}`);
}

/**
 * Returns the queues' `Saq`, from the module at `modulePath`.
 *
 * @throws CliError if there is no such module; ConfigError if it exports no queues
 */
export const loadApp = (configPath: string | undefined): Promise<Saq> => loadSaq(modulePath(configPath));

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
