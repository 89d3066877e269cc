/**
 * A server that starts its workers itself, with the order of steps of the generated `app/server.ts`. `GET /slow` is
 * answered after 3 s.
 */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { logger, options, saq } from "./server-queues.js";

process.on("uncaughtException", (error) => {
  if (process.listenerCount("uncaughtException") > 1) return;
  process.stderr.write(`${"code" in error && error.code === "worker_failed" ? error.message : error.stack}\n`);
  process.exit(1);
});

await saq.connect();
const server = createServer((request, response) => {
  setTimeout(() => response.end("done"), request.url === "/slow" ? 3_000 : 0);
});
server.listen(0, "127.0.0.1");
await once(server, "listening");
logger.info({ port: (server.address() as AddressInfo).port }, "server listens");

const stopRequested = new AbortController();
let stopping = 0;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    if (stopping === 0) void stop(signal);
    else if (Date.now() - stopping > 2_000) {
      server.closeAllConnections();
      saq.hurry();
    }
  });
}

async function stop(signal: NodeJS.Signals): Promise<void> {
  stopping = Date.now();
  stopRequested.abort();
  logger.info({ signal }, "server closing");
  const closed = once(server, "close");
  server.close();
  server.closeIdleConnections();
  await closed;
  await saq.close(options.reloader && signal === "SIGTERM" ? { grace: 1 } : {});
  logger.info("server closed");
  setTimeout(() => process.exit(), 1_000).unref();
}

await saq.startServerLifespan({
  module: new URL("./server-queues.js", import.meta.url),
  signal: stopRequested.signal,
  ...(options.reloader && { reloader: true }),
});
if (stopping === 0) logger.info("server started");
