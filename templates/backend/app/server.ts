import "./start-errors.js";
import { once } from "node:events";
import { createServer } from "node:http";
import type { Worker } from "../saq/index.js";
import { createApp } from "./app.js";
import { SettingsError } from "./errors.js";
import { logger } from "./logger.js";
import { queueRoutes, saq } from "./queue/index.js";
import { settings } from "./settings.js";

/** How long requests under way may go on after a stop was asked for, ms. The reloader of development will not wait. */
const graceMs = settings.underReloader ? 1_000 : 10_000;

await saq.connect();

const server = createServer(createApp({ saq, queueRoutes, logger }));
// Load balancers keep idle connections for 60 s. A server that closes them first makes some requests fail with 502.
server.keepAliveTimeout = 65_000;
server.headersTimeout = 66_000;
server.listen(settings.port, settings.host);
await once(server, "listening").catch(explainHost);

/** @throws SettingsError when HOST is no address of this machine; conda, for one, sets HOST to something else */
function explainHost(error: NodeJS.ErrnoException): never {
  if (!/^(ENOTFOUND|EAI_AGAIN|EADDRNOTAVAIL|EINVAL)$/.test(error.code ?? "")) throw error;
  throw new SettingsError([
    `HOST must be an address of this machine, got ${JSON.stringify(settings.host)} (${error.message}). ` +
      "If your shell sets HOST for another purpose, start with HOST=127.0.0.1",
  ]);
}

/** What is bound: `localhost` would hide that other machines reach it, or that this one does not. */
function addressOf({ host, port }: typeof settings): string {
  if (host === "127.0.0.1") return `http://localhost:${port}`;
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

let workers: readonly Worker[] = [];
let stopping = 0;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    // Ctrl-C and the reloader both send a signal more than once, up to a second apart: those are one.
    if (stopping === 0) void stop(signal);
    else if (Date.now() - stopping > 2_000) {
      server.closeAllConnections();
      for (const worker of workers) worker.hurry();
    }
  });
}

/** Takes no more requests, finishes those under way, then lets go of the database; with nothing left, Node ends. */
async function stop(signal: string): Promise<void> {
  stopping = Date.now();
  logger.info(`${signal}: API closing`);
  const closed = once(server, "close");
  server.close();
  // close() ends the connections that are idle now; one that answers later would be kept open by its client.
  const idle = setInterval(() => server.closeIdleConnections(), 50);
  const deadline = setTimeout(() => server.closeAllConnections(), graceMs);
  await closed;
  clearInterval(idle);
  clearTimeout(deadline);
  await Promise.all(workers.map((worker) => worker.stop(settings.underReloader ? { grace: 1 } : {})));
  await saq.close();
  logger.info("API closed");
}

// Last, because start-up hooks of its workers may take their time, and a signal counts meanwhile, too.
workers = await saq.startInProcessWorkers();
if (stopping === 0) logger.info(`API listening on ${addressOf(settings)}`);
