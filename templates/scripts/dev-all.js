// Runs the whole application for development: installs missing packages, starts the database (and Redis, if the queue
// uses it), runs API, worker and front end. If the API starts the workers itself (useServerLifespan), there is no
// separate worker. One Ctrl-C stops everything. The servers are stopped last, and only those that this script has started
// or has found left running by a previous dev-all that was killed.
import path from "node:path";
import { startDatabase, stopDatabase } from "./database.js";
import { addresses, requireFreePorts } from "./dev-ports.js";
import { ensureEnv } from "./env.js";
import { run } from "./failure.js";
import { installMissing, missingPackages } from "./packages.js";
import { isOwn, redisOf, startRedis, stopRedis } from "./redis.js";
import { allRoles, runRoles, stopOnSignals } from "./roles.js";
import { serverStartsWorkers } from "./server-lifespan.js";
import { isAbandoned, rememberOwner } from "./server-owner.js";

const root = path.dirname(import.meta.dirname);

/**
 * @typedef {object} Service
 * @property {import("./server-owner.js").Server} name
 * @property {boolean} isOwn false if somebody else runs it
 * @property {(root: string) => Promise<{ started: boolean }>} start
 * @property {(root: string) => Promise<void>} stop
 */

/** @param {import("./env.js").Env} env @returns {Service[]} */
function servicesOf(env) {
  const redis = redisOf(env);
  return [
    { name: "database", isOwn: !env.DATABASE_URL, start: startDatabase, stop: stopDatabase },
    ...(redis
      ? [
          {
            name: /** @type {const} */ ("redis"),
            isOwn: isOwn(env, redis),
            start: startRedis,
            stop: stopRedis,
          },
        ]
      : []),
  ];
}

/**
 * Starts the services one after the other, does the work, and stops those that are ours, the last one first.
 * @param {Service[]} services @param {() => Promise<number | void>} work
 * @returns {Promise<number | void>} what the work returns
 */
async function withServices([service, ...others], work) {
  if (!service) return work();
  const abandoned = service.isOwn && isAbandoned(root, service.name);
  const { started } = await service.start(root);
  if (abandoned && !started)
    console.log("A make dev-all that was killed left it running. This one stops it at the end.");
  const isOurs = started || abandoned;
  if (isOurs) rememberOwner(root, service.name);
  try {
    return await withServices(others, work);
  } finally {
    if (isOurs) await service.stop(root);
  }
}

await run(async () => {
  const stop = stopOnSignals();
  const env = ensureEnv(root);
  const services = servicesOf(env);
  await installMissing(root, missingPackages(root));
  const roles = allRoles(root);
  await requireFreePorts(roles, env);
  if (await stop.isRequested()) return;
  // At the same time as the start of the services, which takes longer.
  const workersInside = serverStartsWorkers(root);
  return withServices(services, async () => {
    const parts = (await workersInside) ? roles.filter(({ name }) => name !== "worker") : roles;
    if (await stop.isRequested()) return;
    const urls = addresses(roles, env).map(({ what, url }) => `${what} ${url}`);
    console.log(`Starting: ${urls.join(", ")}. Ctrl-C stops everything.`);
    return (await runRoles(parts, stop)) ? 0 : 1;
  });
});
