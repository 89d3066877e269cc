/** A proxy to the database whose connections can be cut between a statement and its response. */
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { closeAfterTest, type TestDatabase } from "./scenario.js";

/** The last message of a response of PostgreSQL: ReadyForQuery outside of a transaction. */
const readyOutsideTransaction = Buffer.from("Z\0\0\0\x05I");

/** True if the server has done what was sent. A Redis that does not know a script yet has done nothing. */
const isResponse = (data: Buffer, isRedis: boolean): boolean =>
  isRedis
    ? !data.toString("latin1").startsWith("-NOSCRIPT")
    : data.subarray(-6).equals(readyOutsideTransaction);

export interface TestProxy {
  readonly url: string;
  /**
   * From the next statement on that leaves the connection outside of a transaction, swallows what the server sends. So
   * that statement is committed, and its response is lost. Resolves when the server has sent the response. On Redis,
   * the statement is the next command.
   */
  mute(): Promise<void>;
  /**
   * The next request that contains `text` does not reach the server, nor anything after it on its connection. Resolves
   * with the request.
   */
  loseRequest(text: string): Promise<string>;
  /**
   * The next request that contains `text` reaches the server, but nothing that the server sends on this connection from
   * then on is passed on. Resolves with the request when it was passed on.
   */
  loseResponse(text: string): Promise<string>;
  /** From now on, passes on what the server sends in pieces, at 640 KB/s for each connection. */
  slowDown(): void;
  /** Breaks every connection. Later connections work. */
  cut(): void;
  /** Breaks every connection, and each later one at once, until `admit`. */
  refuse(): void;
  admit(): void;
  /** Number of connections that were tried so far. */
  readonly tries: number;
  /** Number of bytes that the server has sent so far. */
  readonly bytesSent: number;
  /** Closes the proxy. It is closed at the end of the test if this was not called before. */
  close(): Promise<void>;
}

async function passOnSlowly(client: Socket, data: Buffer): Promise<void> {
  const piece = 64 * 1024;
  for (let at = 0; at < data.length && !client.destroyed; at += piece) {
    client.write(data.subarray(at, at + piece));
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

export async function openProxy(database: Pick<TestDatabase, "url">): Promise<TestProxy> {
  const target = new URL(database.url);
  const isRedis = target.protocol === "redis:";
  const sockets = new Set<Socket>();
  let swallow: (() => void) | null = null;
  let swallowing = false;
  let lossy: { text: string; loses: "request" | "response"; tell: (request: string) => void } | null = null;
  let refused = false;
  let isSlow = false;
  let tries = 0;
  let bytesSent = 0;
  const server = createServer((client) => {
    tries++;
    if (refused) {
      client.on("error", () => {});
      client.resetAndDestroy();
      return;
    }
    const upstream = connect(Number(target.port), target.hostname);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.once("close", () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
      });
    }
    let lost: "request" | "response" | null = null;
    client.on("data", (data) => {
      if (lossy && data.includes(lossy.text)) {
        const { loses, tell } = lossy;
        lost = loses;
        lossy = null;
        if (loses === "response") upstream.write(data);
        tell(data.toString());
      } else if (lost !== "request") upstream.write(data);
    });
    let passedOn = Promise.resolve();
    upstream.on("data", (data) => {
      bytesSent += data.length;
      if (lost) return;
      if (swallow && (swallowing || isResponse(data, isRedis))) {
        swallowing = true;
        swallow();
      } else if (isSlow) passedOn = passedOn.then(() => passOnSlowly(client, data));
      else client.write(data);
    });
  });
  const cut = () => {
    swallow = null;
    swallowing = false;
    for (const socket of sockets) socket.destroy();
  };
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = async () => {
    cut();
    await new Promise((resolve) => server.close(resolve));
  };
  closeAfterTest({ close });
  const url = new URL(database.url);
  url.port = String((server.address() as AddressInfo).port);
  url.hostname = "127.0.0.1";
  return {
    url: url.href,
    close,
    cut,
    slowDown: () => {
      isSlow = true;
    },
    refuse: () => {
      refused = true;
      cut();
    },
    admit: () => {
      refused = false;
    },
    get tries() {
      return tries;
    },
    get bytesSent() {
      return bytesSent;
    },
    loseRequest: (text) =>
      new Promise((tell) => {
        lossy = { text, loses: "request", tell };
      }),
    loseResponse: (text) =>
      new Promise((tell) => {
        lossy = { text, loses: "response", tell };
      }),
    mute: () =>
      new Promise((resolve) => {
        swallow = resolve;
      }),
  };
}
