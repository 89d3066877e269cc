/**
 * The API process: connects to the database, listens for requests, starts the workers that belong to it, and closes
 * cleanly after a stop signal.
 */
import "./start-errors.js";
import { once } from "node:events";
import { createServer } from "node:http";
import { createApp } from "./app.js";
import { SettingsError } from "./errors.js";
import { logger } from "./logger.js";
import { queueRoutes, saq } from "./queue/index.js";
import { settings } from "./settings.js";

/** How long open requests may continue after a stop signal, in ms. It is short when a save restarts the process. */
const graceMs = settings.underReloader ? 1_000 : 10_000;

await saq.connect();

const server = createServer(createApp({ saq, queueRoutes, logger }));
// Load balancers keep idle connections for 60 s. If the server closes them first, some requests fail with 502.
server.keepAliveTimeout = 65_000;
server.headersTimeout = 66_000;
server.listen(settings.port, settings.host);
await once(server, "listening").catch(rethrowListenError);

/**
 * Throws the error of `listen` again, and explains a wrong HOST. Some programs set HOST to something that is not an
 * address; conda is one of them.
 *
 * @throws SettingsError if HOST is not an address of this machine; any other error unchanged
 */
function rethrowListenError(error: NodeJS.ErrnoException): never {
  if (!/^(ENOTFOUND|EAI_AGAIN|EADDRNOTAVAIL|EINVAL)$/.test(error.code ?? "")) throw error;
  throw new SettingsError([
    `HOST must be an address of this machine, got ${JSON.stringify(settings.host)} (${error.message}). ` +
      "If your shell sets HOST for another purpose, start with HOST=127.0.0.1",
  ]);
}

/**
 * Returns the address for the log, as the server listens on it. `localhost` is shown only for 127.0.0.1: for any other
 * host it would hide that other machines can connect, or that this machine cannot.
 */
function addressOf({ host, port }: typeof settings): string {
  if (host === "127.0.0.1") return `http://localhost:${port}`;
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

const stopRequested = new AbortController();
let stopping = 0;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    // Ctrl-C and the reloader both send the same signal several times, up to 1 s apart. Only a signal that comes more
    // than 2 s after the first counts as a second one.
    if (stopping === 0) void stop(signal);
    else if (Date.now() - stopping > 2_000) {
      server.closeAllConnections();
      saq.hurry();
    }
  });
}

/**
 * Accepts no new requests, waits for open requests and for the workers that belong to the API, then closes the database
 * connections. The process then ends by itself, because nothing keeps it alive.
 */
async function stop(signal: NodeJS.Signals): Promise<void> {
  stopping = Date.now();
  stopRequested.abort();
  logger.info(`${signal}: API closing`);
  const closed = once(server, "close");
  server.close();
  // close() closes only the connections that are idle now. A client could keep open a connection that becomes idle
  // later.
  const idle = setInterval(() => server.closeIdleConnections(), 50);
  const deadline = setTimeout(() => server.closeAllConnections(), graceMs);
  await closed;
  clearInterval(idle);
  clearTimeout(deadline);
  // The reloader sends SIGTERM. Ctrl-C is SIGINT: then running jobs may finish in development too.
  await saq.close(settings.underReloader && signal === "SIGTERM" ? { grace: 1 } : {});
  logger.info("API closed");
  // For a task that still runs, or a connection that was left open.
  setTimeout(() => process.exit(), 1_000).unref();
}

// This comes last: start-up hooks of the workers may take long, and signals must already be handled during that time.
await saq.startServerLifespan({ reloader: settings.underReloader, signal: stopRequested.signal });
if (stopping === 0) logger.info(`API listening on ${addressOf(settings)}`);
