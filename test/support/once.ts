import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { runFolder } from "./run-folder.js";

type Outcome<T> = { value: T } | { failure: string };

/**
 * Calls `make` once per jest run, with the folder `name` in the run's folder. The first test file that calls this runs
 * `make`. Other files, also in other processes, wait for its result, at most `withinMs`.
 * @param make its result must survive JSON
 * @throws the text of what `make` threw, in every file that calls this
 */
export async function oncePerRun<T>(
  name: string,
  withinMs: number,
  make: (folder: string) => Promise<T>,
): Promise<T> {
  const folder = join(runFolder(), name);
  const answer = join(folder, "answer.json");
  try {
    await mkdir(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return opened(JSON.parse(await appeared(answer, withinMs)) as Outcome<T>);
  }
  let outcome: Outcome<T>;
  try {
    outcome = { value: await make(folder) };
  } catch (error) {
    outcome = { failure: String(error) };
  }
  await writeFile(`${answer}.part`, JSON.stringify(outcome));
  await rename(`${answer}.part`, answer);
  return opened(outcome);
}

function opened<T>(outcome: Outcome<T>): T {
  if ("failure" in outcome) throw new Error(outcome.failure);
  return outcome.value;
}

async function appeared(path: string, withinMs: number): Promise<string> {
  const deadline = Date.now() + withinMs;
  while (Date.now() < deadline) {
    try {
      return await readFile(path, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
    await sleep(100);
  }
  throw new Error(`Another test file did not finish ${path} within ${withinMs / 1000} s.`);
}
