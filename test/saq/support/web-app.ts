// The web UI as an application mounts it, with queues in a new database.
import { randomBytes } from "node:crypto";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import express from "express";
import helmet from "helmet";
import pg from "pg";
import {
  type Context,
  createSaq,
  defineQueue,
  defineSaq,
  type Queue,
  type Worker,
} from "../../../templates/backend/saq/index.js";

export interface WebApp {
  /** Address of the UI: `http://127.0.0.1:PORT/saq`. */
  url: string;
  /** The first queue. No worker runs its jobs until `startWorker` is called. */
  queue: Queue;
  /** The second queue, whose name has to be encoded in a URL. */
  odd: Queue;
  /** Makes the task `flaky` succeed from now on. Before, it throws. */
  mend(): void;
  startWorker(): Promise<Worker>;
  query(text: string, values?: unknown[]): Promise<void>;
  /** Another connection to the database. The caller ends it. */
  connect(): Promise<pg.Client>;
  /** Stops the HTTP server. `listenAgain` starts it again on the same port. */
  hangUp(): Promise<void>;
  listenAgain(): Promise<void>;
  close(): Promise<void>;
}

export const oddName = "büro/ärger & co";

export async function startWebApp(): Promise<WebApp> {
  const database = `web_${randomBytes(4).toString("hex")}`;
  const server = new URL(String(process.env.TEST_DATABASE_URL));
  await inDatabase(server.href, `create database ${database}`);
  server.pathname = `/${database}`;
  const dsn = server.href;

  let mended = false;
  const tasks = {
    echo: async (_ctx: Context, payload: Record<string, unknown>) => payload,
    flaky: async (_ctx: Context, payload: { fault: string }) => {
      if (!mended) throw new Error(payload.fault);
      return { mended };
    },
    patient: async (ctx: Context) => {
      await ctx.job.update({ progress: 0.4 });
      await new Promise<void>((resolve) => ctx.signal.addEventListener("abort", () => resolve()));
      ctx.signal.throwIfAborted();
    },
  };
  const config = { dsn, tasks, defaults: { timeout: 60 }, timers: { abort: 0.2, workerInfo: 1 } };
  const saq = createSaq(
    defineSaq({
      queues: [defineQueue({ ...config, name: "default" }), defineQueue({ ...config, name: oddName })],
      web: { enabled: true, path: "/saq" },
    }),
  );
  await saq.connect();
  const workers: Worker[] = [];

  const app = express();
  app.use(helmet());
  app.use(saq.webPath, saq.router());
  let listening = await listen(app, 0);
  const { port } = listening.address() as AddressInfo;

  return {
    url: `http://127.0.0.1:${port}${saq.webPath}`,
    queue: saq.taskQueues.get("default") as unknown as Queue,
    odd: saq.taskQueues.get(oddName) as unknown as Queue,
    mend: () => {
      mended = true;
    },
    startWorker: async () => {
      const [worker] = saq.workers({ shutdownGracePeriod: 0 });
      if (!worker) throw new Error("There is no worker for the first queue.");
      workers.push(worker);
      await worker.start();
      return worker;
    },
    query: (text, values) => inDatabase(dsn, text, values),
    connect: () => connected(dsn),
    hangUp: () => stop(listening),
    listenAgain: async () => {
      listening = await listen(app, port);
    },
    close: async () => {
      await stop(listening);
      await Promise.all(workers.map((worker) => worker.stop()));
      await saq.close();
      await inDatabase(String(process.env.TEST_DATABASE_URL), `drop database ${database}`);
    },
  };
}

function listen(app: express.Express, port: number): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = app.listen(port, "127.0.0.1", (error) => (error ? reject(error) : resolve(server)));
  });
}

function stop(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  return client;
}

async function inDatabase(url: string, text: string, values: unknown[] = []): Promise<void> {
  const client = await connected(url);
  try {
    await client.query(text, values);
  } finally {
    await client.end();
  }
}
