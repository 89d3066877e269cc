// Checks whether a PostgreSQL server accepts connections, like pg_isready. It uses only Node's built-in modules,
// because it runs before any package is installed, so there is no driver yet.
import net from "node:net";

const PROTOCOL_3_0 = 196608;
const CANNOT_CONNECT_NOW = "57P03";

/**
 * Checks whether a PostgreSQL server accepts connections at an address. It sends a start-up message and reads the
 * reply. An authentication request, or any error except "starting up / shutting down", means that the server accepts
 * connections.
 * @param {{ host: string, port: number, timeoutMs?: number }} address
 * @returns {Promise<"ready" | "busy" | "refused" | "not-postgres">} `busy` = the server is starting or stopping
 */
export function probeServer({ host, port, timeoutMs = 3000 }) {
  return new Promise((resolve) => {
    // An absolute path is a folder of Unix sockets, as in postgresql:///name?host=/var/run/postgresql.
    const socket = net.connect(host.startsWith("/") ? { path: `${host}/.s.PGSQL.${port}` } : { host, port });
    let received = Buffer.alloc(0);
    let connected = false;
    /** @param {"ready" | "busy" | "refused" | "not-postgres"} state */
    const finish = (state) => {
      socket.destroy();
      resolve(state);
    };
    socket.setTimeout(timeoutMs, () => finish(connected ? "not-postgres" : "refused"));
    socket.on("error", () => finish(connected ? "busy" : "refused"));
    socket.on("connect", () => {
      connected = true;
      socket.write(startupMessage({ user: "postgres", database: "postgres" }));
    });
    socket.on("data", (chunk) => {
      received = Buffer.concat([received, chunk]);
      if (received.length < 5) return;
      const kind = String.fromCharCode(received.readUInt8(0));
      if (kind === "R") return finish("ready");
      if (kind !== "E") return finish("not-postgres");
      if (received.length < 1 + received.readUInt32BE(1)) return;
      finish(errorCode(received) === CANNOT_CONNECT_NOW ? "busy" : "ready");
    });
    socket.on("end", () => finish(received.length === 0 ? "busy" : "not-postgres"));
  });
}

/**
 * Waits until the server accepts connections.
 * @param {{ host: string, port: number, timeoutMs: number }} options
 * @returns {Promise<boolean>} false after the timeout
 */
export async function waitForServer({ host, port, timeoutMs }) {
  const end = Date.now() + timeoutMs;
  while (Date.now() < end) {
    if ((await probeServer({ host, port, timeoutMs: Math.max(1, end - Date.now()) })) === "ready")
      return true;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return false;
}

/** @param {Record<string, string>} parameters */
function startupMessage(parameters) {
  const body = Buffer.from(`${Object.entries(parameters).flat().join("\0")}\0\0`);
  const head = Buffer.alloc(8);
  head.writeUInt32BE(head.length + body.length, 0);
  head.writeUInt32BE(PROTOCOL_3_0, 4);
  return Buffer.concat([head, body]);
}

/**
 * Returns the SQLSTATE of an ErrorResponse message. Each field of the message is one letter and a text that ends with a
 * zero byte.
 * @param {Buffer} message
 */
function errorCode(message) {
  const fields = message
    .subarray(5, 1 + message.readUInt32BE(1))
    .toString("utf8")
    .split("\0");
  return fields.find((field) => field.startsWith("C"))?.slice(1);
}
