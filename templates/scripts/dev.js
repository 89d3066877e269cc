// Runs one part of the application for development: node scripts/dev.js backend|worker|frontend
import path from "node:path";
import { isDatabaseReady } from "./database-login.js";
import { requireFreePorts } from "./dev-ports.js";
import { ensureEnv } from "./env.js";
import { Failure, run } from "./failure.js";
import { hasFrontend, installMissing, missingPackages } from "./packages.js";
import { requireRedis } from "./redis.js";
import { allRoles, runRoles, stopOnSignals } from "./roles.js";

await run(async () => {
  const root = path.dirname(import.meta.dirname);
  const wanted = process.argv[2];
  const stop = stopOnSignals();
  if (wanted === "frontend" && !hasFrontend(root))
    throw new Failure("This application has no front end: it was generated with --no-frontend.");
  await installMissing(root, missingPackages(root));
  const role = allRoles(root).find(({ name }) => name === wanted);
  if (!role)
    throw new Failure(`There is no part ${wanted}. Usage: node scripts/dev.js backend|worker|frontend`);
  const env = ensureEnv(root);
  await requireFreePorts([role], env);
  if (role.name !== "frontend" && !(await isDatabaseReady(env, 2000))) {
    throw new Failure("The database does not answer. Start it: make db-start");
  }
  if (role.name !== "frontend") await requireRedis(env, 2000);
  return (await runRoles([role], stop)) ? 0 : 1;
});
