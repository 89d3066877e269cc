// Runs the whole application for development: installs missing packages, starts the database, runs API, worker and
// front end. If the API starts the workers itself (useServerLifespan), there is no separate worker. One Ctrl-C stops
// everything. The database is stopped last, and only if this script has started it or has found it left running by a
// previous dev-all that was killed.
import path from "node:path";
import { startDatabase, stopDatabase } from "./database.js";
import { isAbandoned, rememberOwner } from "./database-owner.js";
import { addresses, requireFreePorts } from "./dev-ports.js";
import { ensureEnv } from "./env.js";
import { run } from "./failure.js";
import { installMissing, missingPackages } from "./packages.js";
import { allRoles, runRoles, stopOnSignals } from "./roles.js";
import { serverStartsWorkers } from "./server-lifespan.js";

await run(async () => {
  const root = path.dirname(import.meta.dirname);
  const stop = stopOnSignals();
  const env = ensureEnv(root);
  await installMissing(root, missingPackages(root));
  const roles = allRoles(root);
  await requireFreePorts(roles, env);
  if (await stop.isRequested()) return;
  const abandoned = isAbandoned(root) && !env.DATABASE_URL;
  // At the same time as the start of the database, which takes longer.
  const workersInside = serverStartsWorkers(root);
  const { started } = await startDatabase(root);
  const isOurs = started || abandoned;
  if (abandoned && !started)
    console.log("A make dev-all that was killed left it running. This one stops it at the end.");
  if (isOurs) rememberOwner(root);
  try {
    if (await stop.isRequested()) return;
    const parts = (await workersInside) ? roles.filter(({ name }) => name !== "worker") : roles;
    if (await stop.isRequested()) return;
    const urls = addresses(roles, env).map(({ what, url }) => `${what} ${url}`);
    console.log(`Starting: ${urls.join(", ")}. Ctrl-C stops everything.`);
    return (await runRoles(parts, stop)) ? 0 : 1;
  } finally {
    if (isOurs) await stopDatabase(root);
  }
});
