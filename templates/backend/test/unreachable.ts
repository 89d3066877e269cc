import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import type { Express } from "express";
import { createApp } from "../app/app.js";
import { logger } from "../app/logger.js";
import { defaultQueue } from "../app/queue/config.js";
import { createQueueRoutes } from "../app/queue/routes.js";
import { createSaq, defineSaq } from "../saq/index.js";

/** Creates the API with a database that refuses every connection: its port was free a moment ago. */
export async function unreachableApp(): Promise<Express> {
  const dsn = `postgresql://postgres@127.0.0.1:${await freePort()}/gone`;
  const saq = createSaq(defineSaq({ queues: [{ ...defaultQueue, dsn }], web: { enabled: true }, logger }));
  return createApp({ saq, queueRoutes: createQueueRoutes(saq.taskQueues), logger });
}

/** Returns a port of 127.0.0.1 on which no program listens. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
