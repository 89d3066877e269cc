// Finds out whether the API starts the workers itself: `useServerLifespan` in backend/app/queue/config.ts.
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { findPackage } from "./packages.js";

/** Time for the program that loads the configuration, in ms. */
const TIMEOUT_MS = 30_000;
/** Exit code of that program if the API starts the workers. */
const YES = 10;
const PROGRAM = `
const { saqConfig } = await import("./app/queue/config.ts");
process.exit(saqConfig.useServerLifespan ? ${YES} : 0);
`;

/**
 * Returns true if the API starts the workers. Only the application itself knows the value, because the option may depend
 * on a setting. Loading it takes about a second, so this is done only if the option is mentioned at all. If the
 * configuration cannot be loaded, the result is false: a worker that is not needed does no harm, and it shows the error.
 * @param {string} root
 */
export async function serverStartsWorkers(root) {
  const backend = path.join(root, "backend");
  if (!mentionsOption(path.join(backend, "app"))) return false;
  const loader = pathToFileURL(path.join(findPackage("tsx", backend) ?? "", "dist/loader.mjs")).href;
  const child = spawn(process.execPath, ["--import", loader, "--input-type=module", "--eval", PROGRAM], {
    cwd: backend,
    env: { ...process.env, NODE_ENV: "development" },
    stdio: "ignore",
    timeout: TIMEOUT_MS,
  });
  const [code] = await once(child, "close").catch(() => []);
  return code === YES;
}

/** @param {string} folder */
function mentionsOption(folder) {
  return fs
    .readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts"))
    .some((file) => fs.readFileSync(path.join(folder, file), "utf8").includes("useServerLifespan"));
}
